//! The goals of each workload, on near and on far cores.

/// The ids, in the order of the tables, with their meaning.
pub(crate) const IDS: [(&str, &str); 15] = [
    ("P2", "kick oneself while polling, with other sources beside"),
    ("P3", "write one's own eventfd, one blocking iteration"),
    ("P4", "K ready of M descriptors, per event"),
    ("P5", "bottom halves"),
    ("P6", "timers"),
    ("P7", "register and remove, modify"),
    ("P8", "an iteration with nothing to do"),
    ("P10", "allocations in an iteration with 64 events"),
    ("P11", "notify"),
    ("P12", "memory"),
    ("P13", "between two threads, there and back"),
    ("P15", "10,000 posts to a sleeping loop"),
    ("P18", "tasks; the floor is smol's async-executor"),
    (
        "S1",
        "operations on files; the floor is a bare ring, n is the size of a batch",
    ),
    (
        "R10",
        "delay of a descriptor that cannot be polled, while polling",
    ),
];

/// Returns the highest permitted ratio of ours on io_uring to the floor on epoll.
fn goal_on_uring(id: &str, workload: &str) -> Option<f64> {
    Some(match (id, workload) {
        ("P2", _) => return goal("aio", id, workload),
        ("P3", _) => 1.0,
        ("P4", "K=100") => 0.85,
        ("P7", "register+remove") => 0.35,
        ("P8", _) => 0.05,
        _ => return None,
    })
}

/// Returns the highest permitted ratio of the implementation `ours` to the floor; `None` if no ratio was set.
pub(crate) fn goal(ours: &str, id: &str, workload: &str) -> Option<f64> {
    if ours == "aio-uring" {
        return goal_on_uring(id, workload);
    }
    Some(match (id, workload) {
        ("P2", "cooled" | "board") => 1.1,
        ("P2", "all hot") => 0.7,
        ("P3", _) => 1.03,
        ("P4", workload) if workload.ends_with("doorbells") => 0.25,
        ("P4", _) => 1.03,
        ("P5", "home batch") => 0.5,
        ("P5", "home single") => 0.7,
        ("P5", "cross stream") => 0.4,
        ("P6", _) => 1.1,
        ("P7", _) => 1.08,
        ("P8", _) => 1.05,
        ("P11", "elided") => 2.0,
        ("P13", workload) if workload.contains("blocking") => 1.05,
        ("P13", _) => 2.0,
        ("P18", _) => 1.1,
        _ => return None,
    })
}

/// Returns `true` if ours must be faster than every peer, besides its goal.
pub(crate) fn must_lead(id: &str) -> bool {
    matches!(id, "P6" | "P18")
}

/// Returns the highest permitted value of a figure that is no time.
pub(crate) fn limit(id: &str, workload: &str) -> Option<f64> {
    Some(match (id, workload) {
        ("P10", _) => 0.0,
        ("P12", "handler") => 128.0,
        ("P12", "timer") => 64.0,
        ("P12", "bottom half") => 96.0,
        ("P15", "burst writes") => 2.0,
        ("P15", _) => 100.0,
        ("R10", "staleness on uring p99") => 1.0,
        _ => return None,
    })
}

/// Returns the most instructions that one of our operations may take, without the kernel's.
pub(crate) fn instructions(id: &str, workload: &str, n: u64) -> Option<f64> {
    Some(match (id, workload) {
        ("P2", "cooled") if n == 0 => 300.0,
        ("P3", _) => 200.0,
        ("P4", "K=1") => 250.0,
        ("P4", workload) if !workload.ends_with("doorbells") => 80.0,
        ("P7", _) => 250.0,
        ("P8", _) => 100.0,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_goal_belongs_to_an_id() {
        for (id, workload, expected) in [
            ("P2", "board", Some(1.1)),
            ("P4", "K=100", Some(1.03)),
            ("P4", "K=100 doorbells", Some(0.25)),
            ("P5", "oneshot", None),
            ("P18", "spawn", Some(1.1)),
            ("P13", "ping-pong polling", Some(2.0)),
        ] {
            assert_eq!(goal("aio", id, workload), expected);
            assert!(IDS.iter().any(|(known, _)| *known == id));
        }
        assert_eq!(goal("aio-uring", "P8", "empty"), Some(0.05));
        assert_eq!(goal("aio-uring", "P2", "cooled"), goal("aio", "P2", "cooled"));
        assert_eq!(goal("aio-uring", "P4", "K=1"), None);
        assert!(must_lead("P6") && must_lead("P18") && !must_lead("P5"));
        assert_eq!(limit("P12", "timer"), Some(64.0));
        assert_eq!(limit("P2", "cooled"), None);
        assert_eq!(instructions("P4", "K=1", 1000), Some(250.0));
        assert_eq!(instructions("P4", "K=100", 1000), Some(80.0));
        assert_eq!(instructions("P4", "K=100 doorbells", 1000), None);
    }
}
