//! The rows as text: a ranking, and the means by family.

use aio_replay::geometric_mean;

use crate::row::Row;

/// The result of a policy over all rows.
pub(crate) struct Rank {
    pub(crate) policy: &'static str,
    /// Geometric mean of cost over the clairvoyant optimum.
    pub(crate) mean: f64,
    pub(crate) worst: f64,
    worst_at: String,
    spin_share: f64,
    wakeups: f64,
    p99_us: f64,
}

/// Returns the policies, best first.
pub(crate) fn ranking(rows: &[Row]) -> Vec<Rank> {
    let mut ranks: Vec<Rank> = policies(rows)
        .into_iter()
        .map(|policy| rank(policy, rows))
        .collect();
    ranks.sort_by(|one, other| one.mean.total_cmp(&other.mean));
    ranks
}

fn rank(policy: &'static str, rows: &[Row]) -> Rank {
    let rows: Vec<&Row> = rows.iter().filter(|row| row.policy == policy).collect();
    let mean_of =
        |of: fn(&Row) -> f64| rows.iter().map(|row| of(row)).sum::<f64>() / rows.len().max(1) as f64;
    let worst = rows
        .iter()
        .max_by(|one, other| one.cost_over_clairvoyant.total_cmp(&other.cost_over_clairvoyant));
    Rank {
        policy,
        mean: geometric_mean(rows.iter().map(|row| row.cost_over_clairvoyant)),
        worst: worst.map_or(f64::NAN, |row| row.cost_over_clairvoyant),
        worst_at: worst.map_or_else(String::new, |row| {
            format!("{} at {} us", row.trace, micros(row.wake_cost_ns))
        }),
        spin_share: mean_of(|row| row.spin_share),
        wakeups: mean_of(|row| row.wakeups as f64 / row.waits.max(1) as f64),
        p99_us: mean_of(|row| row.p99_added_ns) / 1000.0,
    }
}

/// Returns the policies in the order of their replays.
fn policies(rows: &[Row]) -> Vec<&'static str> {
    let mut policies = Vec::new();
    for row in rows {
        if !policies.contains(&row.policy) {
            policies.push(row.policy);
        }
    }
    policies
}

pub(crate) fn families(rows: &[Row]) -> Vec<&'static str> {
    let mut families = Vec::new();
    for row in rows {
        if !families.contains(&row.family) {
            families.push(row.family);
        }
    }
    families
}

/// Returns the geometric mean of one policy in one family.
pub(crate) fn mean_in(rows: &[Row], policy: &str, family: &str) -> f64 {
    let of_both = rows
        .iter()
        .filter(|row| row.policy == policy && row.family == family);
    geometric_mean(of_both.map(|row| row.cost_over_clairvoyant))
}

pub(crate) fn print(rows: &[Row]) {
    println!(
        "Cost over knowing the future: 1.00 is the least that is possible; best-fixed knows the best fixed time.\n"
    );
    println!(
        "{:<18} {:>8} {:>9}  {:<34} {:>8} {:>9} {:>10}",
        "policy", "mean", "worst", "where", "polling", "sleeps", "p99 late"
    );
    for rank in ranking(rows) {
        println!(
            "{:<18} {:>8.3} {:>9}  {:<34} {:>6.1} % {:>7.1} % {:>7.1} us",
            rank.policy,
            rank.mean,
            short(rank.worst),
            rank.worst_at,
            100.0 * rank.spin_share,
            100.0 * rank.wakeups,
            rank.p99_us,
        );
    }
    let families = families(rows);
    if families.len() > 1 {
        by_family(rows, &families);
    }
}

fn by_family(rows: &[Row], families: &[&str]) {
    let policies = policies(rows);
    println!("\nThe same by family (geometric means):");
    print!("{:<18}", "");
    for policy in &policies {
        print!(" {:>8}", abbreviated(policy));
    }
    println!();
    for family in families {
        print!("{family:<18}");
        for policy in &policies {
            print!(" {:>8}", short(mean_in(rows, policy, family)));
        }
        println!();
    }
}

fn abbreviated(policy: &str) -> String {
    policy
        .replace("qemu-2020", "q2020")
        .replace("-shrink", "-s")
        .replace("qemu-weighted", "q-weight")
        .replace("ski-rental", "ski")
        .replace("learned-2", "learn-2")
        .replace("best-fixed", "best-fix")
        .chars()
        .take(8)
        .collect()
}

/// Formats a ratio with as many digits as are significant.
fn short(ratio: f64) -> String {
    if ratio >= 1000.0 {
        format!("{ratio:.0}")
    } else if ratio >= 100.0 {
        format!("{ratio:.1}")
    } else {
        format!("{ratio:.3}")
    }
}

fn micros(ns: u64) -> String {
    if ns.is_multiple_of(1000) {
        (ns / 1000).to_string()
    } else {
        format!("{:.2}", ns as f64 / 1000.0)
    }
}

/// Formats wake-up costs in microseconds.
pub(crate) fn list(wakes: &[u64]) -> String {
    wakes
        .iter()
        .map(|wake| micros(*wake))
        .collect::<Vec<_>>()
        .join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(policy: &'static str, family: &'static str, cost: f64) -> Row {
        Row {
            trace: format!("{family}-1"),
            family,
            wake_cost_ns: 5000,
            policy,
            cost_over_clairvoyant: cost,
            spin_ns: 1.0,
            spin_share: 0.5,
            waits: 10,
            wakeups: 5,
            p99_added_ns: 4000.0,
        }
    }

    #[test]
    fn the_best_comes_first_and_the_worst_cell_is_named() {
        let rows = [
            row("one", "a", 4.0),
            row("two", "a", 1.0),
            row("one", "b", 1.0),
            row("two", "b", 2.0),
        ];
        let ranks = ranking(&rows);
        let got: Vec<(&str, f64, &str)> = ranks
            .iter()
            .map(|rank| (rank.policy, rank.worst, rank.worst_at.as_str()))
            .collect();
        assert_eq!(got, [("two", 2.0, "b-1 at 5 us"), ("one", 4.0, "a-1 at 5 us")]);
        assert!((ranks[1].mean - 2.0).abs() < 1e-9);
        assert!((mean_in(&rows, "one", "a") - 4.0).abs() < 1e-9);
        print(&rows);
        print(&[]);
    }

    #[test]
    fn wake_costs_are_read_easily() {
        assert_eq!(list(&[5000, 12_340, 50_000]), "5, 12.34, 50");
    }
}
