//! Code shared by the tasks of this workspace and its measuring programs.
//!
//! | module | purpose |
//! |---|---|
//! | `shell` | starts other programs, with a time limit; the path of the workspace |
//! | `interrupt` | Ctrl-C |
//! | `cores` | the cores of the client and the server, and the cost of a cache line between them |
//! | `build` | checks that this build may report figures |
//! | `plot` | the legend of a picture (feature `plot`) |
//! | `tool` | programs that are built if they are not installed |
//! | `report` | rows as files, the machine, medians (feature `report`) |

pub mod build;
pub mod cores;
pub mod interrupt;
#[cfg(feature = "plot")]
pub mod plot;
#[cfg(feature = "report")]
pub mod report;
pub mod shell;
pub mod tool;

use std::process::ExitCode;

/// Prints the error, if there is one, and returns the exit status of the program: 0 after success, 130 after
/// Ctrl-C, otherwise 1.
pub fn end(result: anyhow::Result<()>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if error.is::<interrupt::Interrupted>() => {
            eprintln!("interrupted");
            ExitCode::from(130)
        }
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
