//! Whether the tests are good ones: what they reach, and whether they notice changes. Steps that need tools which take long to
//! build are skipped where they are not installed; how long the second one may take is bounded, however much has changed.

use std::fs::{self, File};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, bail};

use crate::coverage;
use crate::interrupt::Interrupt;
use crate::mutants::{Score, mutate_changes};
use crate::shell;

/// Tests that take longer hang.
const COVERAGE_LIMIT: Duration = Duration::from_secs(15 * 60);
/// How long mutants are tried.
const MUTANTS_TIME: Duration = Duration::from_secs(5 * 60);

/// Lines of the libraries that their tests reach.
pub(super) fn coverage() -> anyhow::Result<String> {
    let mut cargo = match coverage::measuring()? {
        Ok(cargo) => cargo,
        Err(lacking) => return Ok(super::skipped(lacking)),
    };
    let interrupt = Interrupt::catch()?;
    let file = directory()?.join("coverage.log");
    let log = File::create(&file).with_context(|| format!("cannot write {}", file.display()))?;
    cargo.stderr(log.try_clone()?).stdout(log);
    let ran = shell::run_within(&mut cargo, COVERAGE_LIMIT, &interrupt);
    ran.with_context(|| format!("see {}", file.display()))?;
    coverage::judge(&fs::read_to_string(&file)?)
}

/// Mutants of the lines that have changed, as many as there is time for.
pub(super) fn mutants() -> anyhow::Result<String> {
    for tool in ["cargo-mutants", "cargo-nextest"] {
        if !shell::is_installed(tool) {
            return Ok(super::skipped(&format!("{tool} is not installed")));
        }
    }
    let directory = directory()?;
    let Some(mut cargo) = mutate_changes(&directory)? else {
        return Ok("nothing has changed".to_owned());
    };
    let interrupt = Interrupt::catch()?;
    let ended = shell::status_until(&mut cargo, MUTANTS_TIME, &interrupt, || {})?;
    let said = Score::so_far(&directory).judge_changes(&directory)?;
    match ended.map(|status| status.code()) {
        None => Ok(format!(
            "{said}; the others were not tried within {} s",
            MUTANTS_TIME.as_secs()
        )),
        // Some were missed, some made the tests hang: that is judged above.
        Some(Some(0 | 2 | 3)) => Ok(said),
        Some(_) => bail!("{} failed", shell::line(&cargo)),
    }
}

/// Where these steps keep what they make.
fn directory() -> anyhow::Result<PathBuf> {
    let directory = shell::target_dir()?.join("check");
    fs::create_dir_all(&directory).with_context(|| format!("cannot make {}", directory.display()))?;
    Ok(directory)
}
