//! The last calls of a backend, printed when a test fails.

use std::collections::VecDeque;
use std::fmt;

/// The number of calls that are printed.
const MOST: usize = 12;

/// The last calls and their results.
#[derive(Debug, Default)]
pub(super) struct Recent(VecDeque<String>);

impl Recent {
    /// Records a call that begins.
    pub(super) fn call(&mut self, call: fmt::Arguments<'_>) {
        if self.0.len() == MOST {
            self.0.pop_front();
        }
        self.0.push_back(call.to_string());
    }

    /// Adds the result to the latest call.
    pub(super) fn result(&mut self, result: fmt::Arguments<'_>) {
        if let Some(call) = self.0.back_mut() {
            call.push_str(&format!(" -> {result}"));
        }
    }
}

impl Drop for Recent {
    fn drop(&mut self) {
        if std::thread::panicking() {
            println!(
                "the last {} calls; Token(i.g) has index i and generation g:",
                self.0.len()
            );
            self.0.iter().for_each(|call| println!("  {call}"));
        }
    }
}
