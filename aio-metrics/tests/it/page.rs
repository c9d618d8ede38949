//! Parses a page in Prometheus' text format.

use std::collections::BTreeMap;

/// The samples of a page by their names and labels, and the types of its metrics.
#[derive(Debug, Default)]
pub(crate) struct Page {
    pub(crate) samples: BTreeMap<String, f64>,
    pub(crate) types: BTreeMap<String, String>,
}

impl Page {
    /// # Panics
    /// If a line is malformed, a metric or a sample occurs twice, or a sample stands under another metric.
    pub(crate) fn parse(text: &str) -> Self {
        let mut page = Self::default();
        let mut metric = String::new();
        assert!(text.is_empty() || text.ends_with('\n'));
        for line in text.lines() {
            if let Some(comment) = line.strip_prefix("# ") {
                let mut words = comment.splitn(3, ' ');
                let (keyword, name, rest) = (words.next().unwrap(), words.next(), words.next());
                match keyword {
                    "TYPE" => {
                        metric = name.unwrap().to_owned();
                        let former = page.types.insert(metric.clone(), rest.unwrap().to_owned());
                        assert_eq!(former, None, "{metric} occurs twice");
                    }
                    "HELP" | "UNIT" => assert!(!rest.unwrap().is_empty()),
                    "EOF" => {}
                    other => panic!("{other}: {line}"),
                }
                continue;
            }
            let (series, value) = line.rsplit_once(' ').unwrap();
            let name = series.split('{').next().unwrap();
            assert!(name.starts_with(&metric), "{name} under {metric}");
            let value = value.parse().unwrap();
            assert_eq!(
                page.samples.insert(series.to_owned(), value),
                None,
                "{series} occurs twice"
            );
        }
        page
    }

    /// Returns the value of a series.
    pub(crate) fn value(&self, series: &str) -> f64 {
        *self
            .samples
            .get(series)
            .unwrap_or_else(|| panic!("no {series} in {self:#?}"))
    }
}
