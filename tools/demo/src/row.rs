//! [`Row`]: the figures of one run, for printing, plots and files.

use serde::Serialize;

/// The figures of one run.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Row {
    pub(crate) server: &'static str,
    pub(crate) polling: &'static str,
    pub(crate) idle_queues: usize,
    pub(crate) queue_depth: usize,
    pub(crate) client: String,
    /// The time that the client computes between a completion and its next request.
    pub(crate) think_us: f64,
    pub(crate) round: usize,
    pub(crate) iops: f64,
    /// The mean latency of the quicker 95 %. The rest includes the pauses of the machine.
    pub(crate) mean95_us: f64,
    pub(crate) p50_us: f64,
    pub(crate) p99_us: f64,
    pub(crate) p999_us: f64,
    pub(crate) server_cpu_pct: f64,
    /// The number of writes to the server's eventfd for a request.
    pub(crate) kicks_per_request: f64,
    /// The time of a kick in the client.
    pub(crate) kick_us: f64,
    /// The cost of a request: processor time of the server, latency of the quicker 95 %, and the client's
    /// time for kicks.
    pub(crate) cost_us: f64,
    pub(crate) verified: bool,
    /// The profile that the client was built with.
    pub(crate) profile: &'static str,
}

/// The properties that runs of different rounds have in common.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Cell {
    pub(crate) idle_queues: usize,
    pub(crate) queue_depth: usize,
    pub(crate) client: String,
    pub(crate) think_us: f64,
    pub(crate) server: &'static str,
    pub(crate) polling: &'static str,
}

impl Cell {
    /// Returns the cell of the same work with another server.
    pub(crate) fn by(&self, server: &'static str, polling: &'static str) -> Self {
        Self {
            server,
            polling,
            ..self.clone()
        }
    }

    /// Returns the same cell with another number of idle queues.
    pub(crate) fn beside(&self, idle_queues: usize) -> Self {
        Self {
            idle_queues,
            ..self.clone()
        }
    }

    /// Returns the description of the work, without the server.
    pub(crate) fn work(&self) -> String {
        let think = match self.think_us {
            0.0 => String::new(),
            think => format!(", thinks {think} us"),
        };
        format!(
            "{} idle, depth {}, {} client{think}",
            self.idle_queues, self.queue_depth, self.client
        )
    }
}

impl Row {
    pub(crate) fn cell(&self) -> Cell {
        Cell {
            idle_queues: self.idle_queues,
            queue_depth: self.queue_depth,
            client: self.client.clone(),
            think_us: self.think_us,
            server: self.server,
            polling: self.polling,
        }
    }
}

/// Returns the cells of these rows, each once, in the order of the rows.
pub(crate) fn cells(rows: &[Row]) -> Vec<Cell> {
    let mut cells = Vec::new();
    for row in rows {
        let cell = row.cell();
        if !cells.contains(&cell) {
            cells.push(cell);
        }
    }
    cells
}

pub(crate) fn figures(rows: &[Row], wanted: &Cell, figure: fn(&Row) -> f64) -> Vec<f64> {
    rows.iter()
        .filter(|row| row.cell() == *wanted)
        .map(figure)
        .collect()
}

/// Returns the ratios of the requests per second of two cells in the same round; `None` unless both were
/// measured.
pub(crate) fn ratios(rows: &[Row], above: &Cell, below: &Cell) -> Option<Vec<f64>> {
    ratios_of(rows, above, below, |row| row.iops)
}

/// Returns the ratios of a figure of two cells in the same round; `None` unless both were measured.
pub(crate) fn ratios_of(
    rows: &[Row],
    above: &Cell,
    below: &Cell,
    figure: fn(&Row) -> f64,
) -> Option<Vec<f64>> {
    let of = |cell: &Cell| -> Vec<&Row> { rows.iter().filter(|row| row.cell() == *cell).collect() };
    let below = of(below);
    let ratios: Vec<f64> = of(above)
        .iter()
        .filter_map(|above| {
            let below = below.iter().find(|below| below.round == above.round)?;
            Some(figure(above) / figure(below))
        })
        .collect();
    (!ratios.is_empty()).then_some(ratios)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Returns a row of a spinning client with one request at a time.
    pub(crate) fn row(server: &'static str, polling: &'static str, idle_queues: usize, iops: f64) -> Row {
        Row {
            server,
            polling,
            idle_queues,
            queue_depth: 1,
            client: "spin".to_owned(),
            think_us: 0.0,
            round: 0,
            iops,
            mean95_us: 1.0,
            p50_us: 1.0,
            p99_us: 2.0,
            p999_us: 3.0,
            server_cpu_pct: 4.0,
            kicks_per_request: 0.5,
            kick_us: 1.0,
            cost_us: 1.0 + 40_000.0 / iops + 0.5,
            verified: true,
            profile: "release",
        }
    }

    pub(crate) fn in_round(round: usize, row: Row) -> Row {
        Row { round, ..row }
    }

    #[test]
    fn ratios_are_taken_round_by_round() {
        let of = |idle, round, iops| in_round(round, row("blockd", "off", idle, iops));
        // The last round was not finished.
        let rows = [
            of(0, 0, 100.0),
            of(3200, 0, 90.0),
            of(0, 1, 10.0),
            of(3200, 1, 10.0),
            of(0, 2, 1.0),
        ];
        let cells = cells(&rows);
        assert_eq!(cells.len(), 2);
        assert_eq!(ratios(&rows, &cells[1], &cells[0]), Some(vec![0.9, 1.0]));
        assert_eq!(ratios(&rows, &cells[0].beside(64), &cells[0]), None);
    }

    #[test]
    fn a_row_has_the_agreed_names() {
        let text = serde_json::to_value(row("blockd", "off", 0, 1.0)).unwrap();
        for name in [
            "server",
            "polling",
            "idle_queues",
            "queue_depth",
            "client",
            "iops",
            "p50_us",
            "p99_us",
            "p999_us",
            "server_cpu_pct",
            "verified",
            "think_us",
            "kicks_per_request",
            "profile",
        ] {
            assert!(!text[name].is_null(), "{name}");
        }
    }
}
