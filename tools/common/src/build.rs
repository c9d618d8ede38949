//! Checks that this program was built with optimization. Figures of an unoptimized build mislead, so
//! measuring programs refuse to report them.

use anyhow::ensure;

/// The optimization level of the build, from `build.rs`.
const OPT_LEVEL: &str = env!("AIO_OPT_LEVEL");

/// The profile that this program was built with: "release" or "debug".
pub const PROFILE: &str = if cfg!(debug_assertions) {
    "debug"
} else {
    "release"
};

/// Returns `true` if this build is optimized and has no debug assertions.
pub fn is_optimized() -> bool {
    is_fast(cfg!(debug_assertions), OPT_LEVEL)
}

/// Describes the build, as in "release build (opt-level 3)".
pub fn describe() -> String {
    format!("{PROFILE} build (opt-level {OPT_LEVEL})")
}

/// Fails if this build is not optimized.
///
/// # Errors
/// If this build is not optimized. The message contains the build and `instead`, the command that builds and
/// runs an optimized one.
pub fn require_optimized(instead: &str) -> anyhow::Result<()> {
    ensure!(
        is_optimized(),
        "this is a {}, and its figures would mislead; run `{instead}`, which builds an optimized one",
        describe()
    );
    Ok(())
}

fn is_fast(has_debug_assertions: bool, opt_level: &str) -> bool {
    !has_debug_assertions && !matches!(opt_level, "" | "0" | "1")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_optimized_builds_without_assertions_are_fast() {
        assert!(is_fast(false, "3") && is_fast(false, "2") && is_fast(false, "s"));
        assert!(!is_fast(true, "3"));
        assert!(!is_fast(false, "0") && !is_fast(false, "1") && !is_fast(false, ""));
    }

    #[test]
    fn the_refusal_names_the_command_to_run() {
        let refused = require_optimized("cargo xtask demo");
        assert_eq!(refused.is_ok(), is_optimized());
        if let Err(why) = refused {
            let why = why.to_string();
            assert!(
                why.contains("cargo xtask demo") && why.contains("debug build"),
                "{why}"
            );
        }
    }
}
