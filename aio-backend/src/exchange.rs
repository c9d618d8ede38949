//! [`exchange`]: replaces the owner of a watched descriptor.

use std::io;

use crate::{Backend, Interest, Token, Watched};

/// The reason why a backend does not watch for another owner: see [`exchange`].
///
/// # Examples
/// ```
/// use aio_backend::NotExchanged;
///
/// fn text(refused: &NotExchanged) -> String {
///     let what = if refused.lost.is_some() { "nothing" } else { "the former one" };
///     format!("{what} is watched: {}", refused.error)
/// }
/// ```
#[derive(Debug)]
#[non_exhaustive]
pub struct NotExchanged {
    /// The error of adding the new owner.
    pub error: io::Error,
    /// The error of adding the former owner again; nothing is registered under the token then. If `None`, the
    /// former owner is watched as before.
    pub lost: Option<io::Error>,
}

/// Makes `backend` watch for `new` instead of `former`, under the same token. Both own the same descriptor
/// number; each comes with its interest.
///
/// The backend drops its reference to the former owner.
///
/// # Errors
/// [`NotExchanged`]. The former owner is then watched as before, if the backend still accepts it.
///
/// # Examples
/// ```
/// use aio_backend::{Interest, Token, Watched, exchange};
/// use std::{io, rc::Rc};
/// # use aio_backend::Backend;
///
/// fn replace(backend: &mut dyn Backend, token: Token, former: Watched, new: Watched) -> io::Result<()> {
///     exchange(backend, token, (new, Interest::READ), (former, Interest::READ)).map_err(|refused| refused.error)
/// }
/// ```
pub fn exchange(
    backend: &mut dyn Backend,
    token: Token,
    (new, new_interest): (Watched, Interest),
    (former, former_interest): (Watched, Interest),
) -> Result<(), NotExchanged> {
    // The token is unknown afterwards with either result; `add` fails if anything is wrong.
    let _ = backend.remove(token);
    backend.add(new, token, new_interest).map_err(|error| {
        let lost = backend.add(former, token, former_interest).err();
        NotExchanged { error, lost }
    })
}

#[cfg(test)]
mod tests {
    use std::rc::Rc;
    use std::time::Duration;

    use super::*;
    use crate::ReadyList;
    use crate::stub::stub;

    /// Keeps the descriptors that it watches, and refuses the next calls of `add`.
    #[derive(Debug, Default)]
    struct Mine {
        watched: Vec<(Watched, Token, Interest)>,
        refuses: u32,
    }

    impl Backend for Mine {
        fn name(&self) -> &'static str {
            "mine"
        }
        fn add(&mut self, fd: Watched, token: Token, interest: Interest) -> io::Result<()> {
            if self.refuses > 0 {
                self.refuses -= 1;
                return Err(io::ErrorKind::PermissionDenied.into());
            }
            self.watched.push((fd, token, interest));
            Ok(())
        }
        fn modify(&mut self, _: Token, _: Interest) -> io::Result<()> {
            unreachable!()
        }
        fn remove(&mut self, token: Token) -> io::Result<()> {
            self.watched.retain(|(_, other, _)| *other != token);
            Ok(())
        }
        fn wait(&mut self, _: Option<Duration>, _: &mut ReadyList) -> io::Result<()> {
            unreachable!()
        }
        fn watched(&self) -> usize {
            self.watched.len()
        }
        stub!(visit drain);
    }

    #[test]
    fn r6_the_new_owner_is_watched_or_the_former_one_again_or_none_and_no_share_is_left() {
        let token = Token::new(3, 1);
        for (refuses, lost, left) in [
            (0, None, Some(Interest::WRITE)),
            (1, Some(false), Some(Interest::READ)),
            (2, Some(true), None),
        ] {
            let [former, new] = [(); 2].map(|()| Rc::new(io::pipe().unwrap().0));
            let mut backend = Mine::default();
            backend
                .add(Watched::from(former.clone()), token, Interest::READ)
                .unwrap();
            backend.refuses = refuses;
            let exchanged = exchange(
                &mut backend,
                token,
                (Watched::from(new.clone()), Interest::WRITE),
                (Watched::from(former.clone()), Interest::READ),
            );
            assert_eq!(exchanged.err().map(|refused| refused.lost.is_some()), lost);
            assert_eq!(backend.watched.first().map(|(.., interest)| *interest), left);
            let shares = (Rc::strong_count(&new), Rc::strong_count(&former));
            let expected = [(2, 1), (1, 2), (1, 1)][refuses as usize];
            assert_eq!(
                (shares, backend.watched()),
                (expected, usize::from(left.is_some()))
            );
        }
    }
}
