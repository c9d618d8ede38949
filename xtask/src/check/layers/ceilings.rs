//! The most that a core crate may ever depend on. The arrows of ARCHITECTURE.md state the dependencies of
//! today, and a change that adds a dependency adds an arrow. An arrow does not raise a ceiling.

use crate::check::arrows::Arrows;

/// The dependencies that one crate may have, independent of ARCHITECTURE.md.
struct Ceiling {
    name: &'static str,
    /// Crates of this workspace.
    inside: &'static [&'static str],
    /// Other crates.
    outside: &'static [&'static str],
}

const fn ceiling(
    name: &'static str,
    inside: &'static [&'static str],
    outside: &'static [&'static str],
) -> Ceiling {
    Ceiling {
        name,
        inside,
        outside,
    }
}

/// The ceiling of a backend: the contract, and no other backend.
const CONTRACT: &[&str] = &["aio-backend"];
/// The parts that `aio-context` composes.
const PARTS: &[&str] = &[
    "aio-backend",
    "aio-backend-epoll",
    "aio-backend-ladder",
    "aio-backend-ppoll",
    "aio-backend-uring",
    "aio-handlers",
    "aio-notify",
    "aio-pollctl",
    "aio-pollset",
    "aio-timers",
];
/// The ceiling of a crate on top of contexts: their public interface, and the types of the parts that appear
/// in it.
const ABOVE: &[&str] = &[
    "aio-backend",
    "aio-context",
    "aio-notify",
    "aio-pollctl",
    "aio-timers",
];

/// Some of these crates do not exist yet; their ceilings are decided.
const CEILINGS: [Ceiling; 16] = [
    // All of these except bitflags are for the conformance kit.
    ceiling(
        "aio-backend",
        &[],
        &["bitflags", "fastrand", "nix", "rustix", "signal-hook"],
    ),
    ceiling("aio-backend-ppoll", CONTRACT, &["rustix"]),
    ceiling("aio-backend-epoll", CONTRACT, &["rustix", "tracing"]),
    ceiling("aio-backend-uring", CONTRACT, &["io-uring", "rustix", "tracing"]),
    ceiling("aio-backend-ladder", CONTRACT, &["rustix", "smallvec", "tracing"]),
    ceiling("aio-handlers", CONTRACT, &["smallvec"]),
    ceiling("aio-pollset", CONTRACT, &["smallvec"]),
    ceiling("aio-pollctl", &[], &[]),
    ceiling("aio-timers", &[], &["loom", "shuttle"]),
    ceiling("aio-notify", &[], &["loom", "rustix", "shuttle"]),
    ceiling("aio-replay", &["aio-pollctl"], &[]),
    ceiling(
        "aio-context",
        PARTS,
        &["loom", "rustix", "shuttle", "smallvec", "tracing"],
    ),
    // uapi blocks and receives real-time signals, which nix does not support. It is optional.
    ceiling(
        "aio-sources",
        ABOVE,
        &["loom", "nix", "rustix", "shuttle", "thiserror", "tracing", "uapi"],
    ),
    // rustix makes descriptors non-blocking.
    ceiling(
        "aio-executor",
        ABOVE,
        &[
            "futures-core",
            "futures-io",
            "pin-project-lite",
            "rustix",
            "tracing",
        ],
    ),
    ceiling("aio-metrics", ABOVE, &["prometheus-client"]),
    ceiling("aio-glib", ABOVE, &["glib", "rustix", "tracing"]),
];

/// Returns the dependencies that exceed a ceiling, and the libraries without a ceiling. `built` holds the
/// dependencies of the manifests.
pub(super) fn faults(built: &Arrows, libraries: &[String]) -> Vec<String> {
    let named = |name: &str| CEILINGS.iter().find(|ceiling| ceiling.name == name);
    let mut faults = Vec::new();
    for library in libraries.iter().filter(|library| named(library).is_none()) {
        faults.push(format!("{library} has no ceiling: add it to CEILINGS"));
    }
    for (name, uses) in built {
        let Some(ceiling) = named(name) else { continue };
        for used in uses {
            let is_inside = built.contains_key(used);
            let allowed = if is_inside {
                ceiling.inside
            } else {
                ceiling.outside
            };
            if allowed.contains(&used.as_str()) {
                continue;
            }
            let remedy = if is_inside {
                "move the responsibility"
            } else {
                "do without it"
            };
            faults.push(format!(
                "{name} may never depend on {used}: {remedy}, or change CEILINGS with a reason in ARCHITECTURE.md"
            ));
        }
    }
    faults
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::arrows::{circle, parse_lines};

    fn faults_of(lines: &str) -> Vec<String> {
        faults(&parse_lines(lines).unwrap(), &[])
    }

    #[test]
    fn an_arrow_that_is_written_down_does_not_raise_a_ceiling() {
        let expected = "aio-timers may never depend on aio-backend: move the responsibility, or change CEILINGS with a reason \
                        in ARCHITECTURE.md";
        assert_eq!(faults_of("aio-timers -> aio-backend\naio-backend ->"), [expected]);
        for upward in [
            "aio-notify -> aio-timers\naio-timers ->",
            "aio-pollctl -> aio-backend\naio-backend ->",
            "aio-backend -> aio-handlers\naio-handlers ->",
            "aio-backend-epoll -> aio-backend-ppoll\naio-backend-ppoll ->",
            "aio-backend-ladder -> aio-backend-epoll\naio-backend-epoll ->",
            "aio-handlers -> aio-pollset\naio-pollset ->",
            "aio-pollset -> aio-pollctl\naio-pollctl ->",
            "aio-context -> aio-sources\naio-sources ->",
            "aio-context -> aio-replay\naio-replay ->",
            "aio-replay -> aio-context\naio-context ->",
        ] {
            assert_eq!(faults_of(upward).len(), 1, "{upward}");
        }
    }

    #[test]
    fn a_core_crate_uses_few_crates_from_outside() {
        let faults = faults_of("aio-timers -> libc");
        assert!(faults[0].starts_with("aio-timers may never depend on libc: do without it"));
        assert_eq!(faults_of("aio-pollctl -> (fastrand)").len(), 1);
        assert_eq!(faults_of("aio-notify -> (rustix)"), Vec::<String>::new());
    }

    #[test]
    fn what_the_design_allows_is_allowed() {
        let core = "aio-backend -> (bitflags)\naio-backend-epoll -> aio-backend (rustix)\naio-pollset -> aio-backend\n\
                    aio-context -> aio-backend-epoll aio-pollset (smallvec)\naio-sources -> aio-context\n\
                    blockd -> aio-context anything";
        assert_eq!(faults_of(core), Vec::<String>::new());
    }

    #[test]
    fn a_new_library_needs_a_ceiling() {
        let libraries = ["aio-timers", "aio-new"].map(str::to_owned);
        let faults = faults(&Arrows::new(), &libraries);
        assert_eq!(faults, ["aio-new has no ceiling: add it to CEILINGS"]);
    }

    #[test]
    fn no_ceiling_is_above_another_that_is_above_it() {
        let arrows: Arrows = CEILINGS
            .iter()
            .map(|ceiling| {
                let inside = ceiling.inside.iter().map(|&name| name.to_owned());
                (ceiling.name.to_owned(), inside.collect())
            })
            .collect();
        assert_eq!(arrows.len(), CEILINGS.len());
        assert_eq!(circle(&arrows), None);
    }
}
