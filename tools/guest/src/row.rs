//! The results, as rows.

use serde::Serialize;

/// The configuration that serves a guest's disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Setup {
    pub(crate) queues: u16,
    /// `off` or `adaptive`.
    pub(crate) polling: &'static str,
    pub(crate) engine: &'static str,
    /// The I/O threads that serve the queues: 1 or 2.
    pub(crate) iothreads: u16,
}

impl Setup {
    /// Returns every combination of one and four queues, polling, and engines. Two threads serve four queues.
    pub(crate) fn all() -> Vec<Self> {
        let mut all = Vec::new();
        for engine in ["threads", "uring"] {
            for polling in ["off", "adaptive"] {
                all.extend([1, 4].map(|queues| Self {
                    queues,
                    polling,
                    engine,
                    iothreads: queues.min(2),
                }));
            }
        }
        all
    }

    /// Returns two setups that together have every value once.
    pub(crate) fn quick() -> Vec<Self> {
        Self::all()
            .into_iter()
            .filter(|setup| match setup.engine {
                "threads" => setup.queues == 1 && setup.polling == "off",
                _ => setup.queues == 4 && setup.polling == "adaptive",
            })
            .collect()
    }

    /// Returns the options of blockd.
    pub(crate) fn options(&self) -> [&'static str; 6] {
        let poll_max = if self.polling == "off" { "0" } else { "100us" };
        let iothreads = if self.iothreads == 1 { "1" } else { "2" };
        [
            "--engine",
            self.engine,
            "--poll-max",
            poll_max,
            "--iothreads",
            iothreads,
        ]
    }
}

impl std::fmt::Display for Setup {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let plural = if self.queues == 1 { "" } else { "s" };
        write!(
            f,
            "{} queue{plural}, polling {}, engine {}",
            self.queues, self.polling, self.engine
        )?;
        match self.iothreads {
            1 => Ok(()),
            count => write!(f, ", {count} I/O threads"),
        }
    }
}

/// One step of one guest.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Row {
    #[serde(flatten)]
    pub(crate) setup: Setup,
    pub(crate) step: &'static str,
    pub(crate) ok: bool,
    /// The result, or the error.
    pub(crate) saw: String,
    pub(crate) seconds: f64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_quick_run_has_every_value() {
        let quick = Setup::quick();
        assert_eq!(quick.len(), 2);
        assert_eq!(Setup::all().len(), 8);
        assert!(quick[0].queues != quick[1].queues);
        assert!(quick[0].polling != quick[1].polling && quick[0].engine != quick[1].engine);
    }
}
