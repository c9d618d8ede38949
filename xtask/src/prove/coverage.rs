//! Coverage by lines.

use super::at::{At, Outcome, Result};
use crate::coverage::{judge, measuring};

pub(super) fn run(at: &At<'_>) -> Result {
    match measuring()? {
        Ok(mut cargo) => Ok(Outcome::Found(judge(&at.run(&mut cargo)?)?)),
        Err(lacking) => Ok(Outcome::skipped(lacking)),
    }
}
