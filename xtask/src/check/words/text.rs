//! Splits a file into its words and into the identifiers of its code.

/// A word of prose or a part of an identifier, in lower case.
pub(super) struct Token {
    pub(super) text: String,
    pub(super) line: usize,
    /// `true` if there are only spaces, or the marks of a comment, between it and the previous token.
    pub(super) follows: bool,
}

/// A whole identifier in code.
pub(super) struct Name<'a> {
    pub(super) text: &'a str,
    pub(super) line: usize,
}

fn is_of_identifier(letter: char) -> bool {
    letter.is_ascii_alphanumeric() || letter == '_'
}

/// Returns the words of a text. `HotSet` and `hot_set` are two words each.
pub(super) fn tokens(text: &str) -> Vec<Token> {
    let mut tokens = Vec::new();
    let (mut follows, mut before) = (false, ' ');
    for (line, text) in (1..).zip(text.lines()) {
        let begins = tokens.len();
        before = if before.is_ascii_alphanumeric() {
            ' '
        } else {
            before
        };
        for (at, letter) in text.char_indices() {
            if letter.is_ascii_alphanumeric() {
                let next_is_small = text[at + 1..].starts_with(|next: char| next.is_ascii_lowercase());
                let is_hump = letter.is_ascii_uppercase()
                    && (before.is_ascii_lowercase() || before.is_ascii_digit() || next_is_small);
                if !before.is_ascii_alphanumeric() || is_hump || tokens.len() == begins {
                    tokens.push(Token {
                        text: String::new(),
                        line,
                        follows,
                    });
                    follows = true;
                }
                if let Some(token) = tokens.last_mut() {
                    token.text.push(letter.to_ascii_lowercase());
                }
            } else if !matches!(letter, ' ' | '\t' | '_' | '/' | '!' | '-' | '*' | '`') {
                follows = false;
            }
            before = letter;
        }
    }
    tokens
}

/// The prefix of names of the standard library that are retired here, such as `thread::park`.
const STD: &str = "thread::";

/// Returns the identifiers of a file that are code, without attributes.
pub(super) fn names<'a>(file: &str, text: &'a str) -> Vec<Name<'a>> {
    let mut lexer = Lexer {
        is_rust: file.ends_with(".rs"),
        state: State::Code,
    };
    let mut names = Vec::new();
    for (line, text) in (1..).zip(text.lines()) {
        let is_attribute = lexer.is_rust && text.trim_start().starts_with("#[");
        let code = lexer.line(text);
        if is_attribute {
            continue;
        }
        let mut begin = None;
        for (at, letter) in text.char_indices().chain([(text.len(), ' ')]) {
            if code.get(at).is_some_and(|code| *code) && is_of_identifier(letter) {
                begin.get_or_insert(at);
            } else if let Some(begin) = begin.take()
                && !text[..begin].ends_with(STD)
            {
                names.push(Name {
                    text: &text[begin..at],
                    line,
                });
            }
        }
    }
    names
}

/// The kind of text at the current position.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Code,
    /// A comment until the end of the line; in Markdown all prose. The value is `true` in backticks.
    Prose(bool),
    /// A comment that ends with `*/`, and its depth.
    Block(usize),
    /// A string that ends with a quotation mark and `hashes` times `#`; without escapes if it is raw.
    Text {
        hashes: usize,
        raw: bool,
    },
}

/// Separates code from comments, strings and prose, line by line.
struct Lexer {
    is_rust: bool,
    state: State,
}

impl Lexer {
    /// Returns for each byte of a line whether it is code.
    fn line(&mut self, line: &str) -> Vec<bool> {
        let bytes = line.as_bytes();
        let mut code = vec![false; bytes.len()];
        if !self.is_rust || matches!(self.state, State::Prose(_)) {
            self.state = if self.is_rust {
                State::Code
            } else {
                State::Prose(false)
            };
        }
        let mut at = 0;
        while at < bytes.len() {
            let (is_code, length) = self.step(&bytes[at..], at > 0 && is_of_identifier(bytes[at - 1].into()));
            code[at..(at + length).min(bytes.len())].fill(is_code);
            at += length;
        }
        code
    }

    /// Returns whether the next bytes are code, and their number.
    fn step(&mut self, rest: &[u8], inside_name: bool) -> (bool, usize) {
        let begins = |text: &str| rest.starts_with(text.as_bytes());
        match self.state {
            State::Prose(quoted) => {
                if begins("`") {
                    self.state = State::Prose(!quoted);
                }
                return (quoted && !begins("`"), 1);
            }
            State::Block(depth) => {
                if begins("*/") {
                    self.state = if depth > 1 {
                        State::Block(depth - 1)
                    } else {
                        State::Code
                    };
                } else if begins("/*") {
                    self.state = State::Block(depth + 1);
                } else {
                    return (false, 1);
                }
                return (false, 2);
            }
            State::Text { hashes, raw } => {
                if begins("\\") && !raw {
                    return (false, 2);
                }
                if begins("\"") && rest[1..].iter().take_while(|byte| **byte == b'#').count() >= hashes {
                    self.state = State::Code;
                    return (false, 1 + hashes);
                }
                return (false, 1);
            }
            State::Code => {}
        }
        if begins("//") {
            self.state = State::Prose(false);
            return (false, 2);
        }
        if begins("/*") {
            self.state = State::Block(1);
            return (false, 2);
        }
        let raw = usize::from(begins("br")) + usize::from(begins("br") || begins("r"));
        let hashes = rest[raw..].iter().take_while(|byte| **byte == b'#').count();
        if raw > 0 && !inside_name && rest.get(raw + hashes) == Some(&b'"') {
            self.state = State::Text { hashes, raw: true };
            return (false, raw + hashes + 1);
        }
        if begins("\"") {
            self.state = State::Text {
                hashes: 0,
                raw: false,
            };
            return (false, 1);
        }
        // A character literal. A lifetime has no second quotation mark.
        if begins("'\\") {
            let end = rest.iter().skip(3).position(|byte| *byte == b'\'');
            return (false, end.map_or(2, |end| end + 4));
        }
        if begins("'") && rest.get(2) == Some(&b'\'') {
            return (false, 3);
        }
        (true, 1)
    }
}
