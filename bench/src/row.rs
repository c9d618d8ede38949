//! [`Row`]: one figure, for printing, comparison with the goal, plots and files.

use serde::{Deserialize, Serialize};

use crate::case::Outcome;

/// A figure: nanoseconds per operation, or a count.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Row {
    pub(crate) id: String,
    pub(crate) workload: String,
    pub(crate) r#impl: String,
    pub(crate) n: u64,
    /// Nanoseconds per operation; the median of the rounds.
    pub(crate) ns: f64,
    pub(crate) min_ns: f64,
    pub(crate) max_ns: f64,
    pub(crate) ratio_to_floor: Option<f64>,
    pub(crate) ratio_min: Option<f64>,
    pub(crate) ratio_max: Option<f64>,
    /// A figure that is no time, such as bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) count: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) unit: Option<String>,
    /// Instructions per operation in user space.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) instructions: Option<f64>,
}

/// A ratio to the floor, and its spread.
pub(crate) struct Ratio {
    pub(crate) median: f64,
    pub(crate) low: f64,
    pub(crate) high: f64,
}

impl Row {
    /// Returns a row without figures.
    pub(crate) fn new(id: &str, workload: &str, name: &str, n: u64) -> Self {
        Self {
            id: id.to_owned(),
            workload: workload.to_owned(),
            r#impl: name.to_owned(),
            n,
            ns: 0.0,
            min_ns: 0.0,
            max_ns: 0.0,
            ratio_to_floor: None,
            ratio_min: None,
            ratio_max: None,
            count: None,
            unit: None,
            instructions: None,
        }
    }

    /// Returns a figure of ours that is no time, such as bytes.
    pub(crate) fn counted(id: &str, workload: &str, n: u64, count: f64, unit: &str) -> Self {
        Self {
            count: Some(count),
            unit: Some(unit.to_owned()),
            ..Self::new(id, workload, "aio", n)
        }
    }

    /// Returns the result of a contestant, relative to the floor in the same rounds.
    pub(crate) fn measured(
        id: &str,
        workload: &str,
        n: u64,
        outcome: &Outcome,
        floor: Option<&[f64]>,
    ) -> Self {
        let (min_ns, ns, max_ns) = spread(&outcome.ns);
        let floor = floor.unwrap_or_default().iter();
        let ratios: Vec<f64> = floor.zip(&outcome.ns).map(|(floor, ns)| ns / floor).collect();
        let (ratio_min, ratio_to_floor, ratio_max) = spread(&ratios);
        let known = |ratio: f64| (!ratio.is_nan()).then_some(ratio);
        Self {
            ns,
            min_ns,
            max_ns,
            ratio_to_floor: known(ratio_to_floor),
            ratio_min: known(ratio_min),
            ratio_max: known(ratio_max),
            ..Self::new(id, workload, outcome.name, n)
        }
    }

    pub(crate) fn ratio(&self) -> Option<Ratio> {
        Some(Ratio {
            median: self.ratio_to_floor?,
            low: self.ratio_min?,
            high: self.ratio_max?,
        })
    }

    pub(crate) fn is_ours(&self) -> bool {
        self.r#impl.starts_with("aio")
    }

    pub(crate) fn is_peer(&self) -> bool {
        !self.is_ours() && !self.r#impl.starts_with("floor")
    }

    pub(crate) fn is_same_work(&self, other: &Self) -> bool {
        self.id == other.id && self.workload == other.workload && self.n == other.n
    }

    pub(crate) fn is_same_case(&self, other: &Self) -> bool {
        self.is_same_work(other) && self.r#impl == other.r#impl
    }
}

/// Returns the smallest, the middle and the largest figure.
fn spread(figures: &[f64]) -> (f64, f64, f64) {
    let mut sorted = figures.to_vec();
    sorted.sort_by(f64::total_cmp);
    match sorted.len() {
        0 => (f64::NAN, f64::NAN, f64::NAN),
        len => (sorted[0], sorted[len / 2], sorted[len - 1]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_read_as_they_are_written() {
        let text = r#"[{"id":"P3","workload":"self-kick blocking","impl":"aio","n":0,"ns":1.5,"min_ns":1.0,"max_ns":2.0,
            "ratio_to_floor":null,"ratio_min":null,"ratio_max":null}]"#;
        let rows: Vec<Row> = serde_json::from_str(text).unwrap();
        assert!(rows[0].is_ours() && rows[0].ratio().is_none());
        let again = serde_json::to_string(&rows).unwrap();
        assert!(
            again.contains(r#""impl":"aio""#) && !again.contains("instructions"),
            "{again}"
        );
    }
}
