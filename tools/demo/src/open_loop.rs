//! The cost of polling policies in the open-loop runs: processor time plus waiting time.
//!
//! The slowest twentieth of the requests is left out: a few of them coincide with a pause of the machine and
//! are thousands of times slower, and their share is random.
//!
//! A microsecond of waiting and a microsecond of processor time cost the same here. So the cost of a second
//! is the daemon's share of a core plus latency times rate, which is the mean number of waiting requests. At
//! every rate adaptive polling should cost nearly as little as the better of the two simple policies,
//! although it does not know the rate.

use crate::row::Row;
use aio_tools::report::{median, range};

/// The highest permitted ratio of the cost of adaptive polling to the better of the other two.
const TOLERATED: f64 = 1.1;

/// The verdict for one rate: the ratios of the cost of adaptive polling to the better of off and always, one
/// for each round.
struct Verdict<'a> {
    client: &'a str,
    idle_queues: usize,
    ratios: Vec<f64>,
    /// The medians of off, adaptive and always.
    costs: [f64; 3],
}

pub(crate) fn print(rows: &[Row]) {
    let verdicts = verdicts(rows);
    if verdicts.is_empty() {
        return;
    }
    println!(
        "\nOpen loop: cores used + requests waiting in the mean; adaptive over the better of off and always"
    );
    for verdict in verdicts {
        let (low, high) = range(&verdict.ratios);
        let [off, adaptive, always] = verdict.costs;
        let is_met = median(&verdict.ratios) <= TOLERATED;
        println!(
            "  {:<14} {:>5} idle   off {off:>6.3}   adaptive {adaptive:>6.3}   always {always:>6.3}   {:>5.2} [{low:.2} - {high:.2}]   {}",
            verdict.client,
            verdict.idle_queues,
            median(&verdict.ratios),
            if is_met { "met" } else { "missed" },
        );
    }
}

fn verdicts(rows: &[Row]) -> Vec<Verdict<'_>> {
    let mut found: Vec<Verdict<'_>> = Vec::new();
    for row in rows
        .iter()
        .filter(|row| row.server == "blockd" && row.client.starts_with("poisson"))
    {
        if found
            .iter()
            .any(|verdict| (verdict.client, verdict.idle_queues) == (&row.client, row.idle_queues))
        {
            continue;
        }
        let costs = |polling: &str| -> Vec<f64> {
            rows.iter()
                .filter(|other| other.server == row.server && other.client == row.client)
                .filter(|other| other.polling == polling && other.idle_queues == row.idle_queues)
                .map(cost)
                .collect()
        };
        let [off, adaptive, always] = ["off", "adaptive", "always"].map(costs);
        let better = off.iter().zip(&always).map(|(off, always)| off.min(*always));
        let ratios: Vec<f64> = adaptive
            .iter()
            .zip(better)
            .map(|(adaptive, better)| adaptive / better)
            .collect();
        if !ratios.is_empty() {
            found.push(Verdict {
                client: &row.client,
                idle_queues: row.idle_queues,
                ratios,
                costs: [&off, &adaptive, &always].map(|costs| median(costs)),
            });
        }
    }
    found
}

fn cost(row: &Row) -> f64 {
    row.server_cpu_pct / 100.0 + row.mean95_us * row.iops / 1e6
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(polling: &'static str, cpu: f64, mean_us: f64) -> Row {
        Row {
            client: "poisson-10000".to_owned(),
            mean95_us: mean_us,
            server_cpu_pct: cpu,
            ..crate::row::tests::row("blockd", polling, 0, 10_000.0)
        }
    }

    #[test]
    fn the_better_of_the_other_two_is_the_measure_in_each_round() {
        let rows = [
            row("off", 10.0, 30.0),      // 0.1 + 0.3
            row("adaptive", 30.0, 20.0), // 0.3 + 0.2
            row("always", 100.0, 10.0),  // 1.0 + 0.1
            row("off", 20.0, 100.0),
            row("adaptive", 55.0, 55.0),
            row("always", 90.0, 10.0),
        ];
        let verdicts = verdicts(&rows);
        assert_eq!(verdicts.len(), 1);
        let expected = [0.5 / 0.4, 1.1 / 1.0];
        for (ratio, expected) in verdicts[0].ratios.iter().zip(expected) {
            assert!((ratio - expected).abs() < 1e-9, "{ratio} instead of {expected}");
        }
    }

    #[test]
    fn without_all_three_there_is_no_verdict() {
        assert!(verdicts(&[row("off", 10.0, 30.0), row("adaptive", 30.0, 20.0)]).is_empty());
        let mut closed = [
            row("off", 1.0, 1.0),
            row("adaptive", 1.0, 1.0),
            row("always", 1.0, 1.0),
        ];
        closed.iter_mut().for_each(|row| row.client = "spin".to_owned());
        assert!(verdicts(&closed).is_empty());
    }
}
