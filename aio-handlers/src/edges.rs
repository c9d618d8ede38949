//! The registrations with recorded edges, and a flag that shows whether there are any.

use aio_backend::{Flag, Token};

#[derive(Debug, Default)]
pub(crate) struct Edges {
    tokens: Vec<Token>,
    flag: Flag,
}

impl Edges {
    pub(crate) fn flagged(flag: Flag) -> Self {
        Self {
            tokens: Vec::new(),
            flag,
        }
    }

    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.tokens.is_empty()
    }

    pub(crate) fn push(&mut self, token: Token) {
        self.tokens.push(token);
        self.flag.set(true);
    }

    pub(crate) fn retain(&mut self, keep: impl FnMut(&Token) -> bool) {
        self.tokens.retain(keep);
        self.flag.set(!self.is_empty());
    }

    /// Removes the latest entry if it is that of `token` and `token` has an earlier one, too.
    pub(crate) fn drop_repeated(&mut self, token: Token) {
        if let [before @ .., last] = &*self.tokens
            && *last == token
            && before.contains(&token)
        {
            self.tokens.pop();
        }
    }
}
