//! The goals of the workloads, which were set before the measurements.

/// The ids with their meanings, in the order of the tables.
pub(crate) const IDS: [(&str, &str); 12] = [
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
    ("R10", "how late what cannot be polled is served while polling"),
];

/// What ours may be of the floor at the most; `None` where no ratio was set.
pub(crate) fn goal(id: &str, workload: &str) -> Option<f64> {
    Some(match (id, workload) {
        ("P2", "cooled") => 1.1,
        ("P2", "all hot") => 1.2,
        ("P2", "board") => 2.0,
        ("P3", _) => 1.05,
        ("P4", workload) if workload.ends_with("doorbells") => 0.25,
        ("P4", _) => 1.05,
        ("P5", "home batch") => 1.25,
        ("P5", "cross stream") => 1.2,
        ("P6", _) => 1.3,
        ("P7", _) => 1.15,
        ("P8", _) => 1.1,
        ("P11", "elided") => 2.0,
        ("P13", workload) if workload.contains("blocking") => 1.05,
        ("P13", _) => 3.0,
        _ => return None,
    })
}

/// What a figure that is no time may be at the most.
pub(crate) fn limit(id: &str, workload: &str) -> Option<f64> {
    Some(match (id, workload) {
        ("P10", _) => 0.0,
        ("P12", "handler") => 128.0,
        ("P12", "timer") => 64.0,
        ("P12", "bottom half") => 96.0,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_goal_belongs_to_an_id() {
        for (id, workload, expected) in [
            ("P2", "board", Some(2.0)),
            ("P4", "K=100", Some(1.05)),
            ("P4", "K=100 doorbells", Some(0.25)),
            ("P5", "oneshot", None),
            ("P13", "ping-pong polling", Some(3.0)),
        ] {
            assert_eq!(goal(id, workload), expected);
            assert!(IDS.iter().any(|(known, _)| *known == id));
        }
        assert_eq!(limit("P12", "timer"), Some(64.0));
        assert_eq!(limit("P2", "cooled"), None);
    }
}
