//! The list of the exports and loops, and their statistics.

use aio_context::{ClockId, Context};

use super::{Entry, Exports};
use crate::figures::{ExportState, List, LoopState, Snapshot, merge};
use crate::loops::{Activity, Local};

impl Exports {
    /// Passes the present exports and loops to `done`. `metrics` is the address of the metrics.
    pub(crate) fn list(
        &self,
        cx: &Context,
        metrics: Option<String>,
        done: impl FnOnce(&Context, List) + 'static,
    ) {
        let me = self.me.clone();
        self.check_images(cx, move |cx| {
            if let Some(exports) = me.upgrade() {
                exports.gather_list(cx, metrics, done);
            }
        });
    }

    fn gather_list(
        &self,
        cx: &Context,
        metrics: Option<String>,
        done: impl FnOnce(&Context, List) + 'static,
    ) {
        let me = self.me.clone();
        let now = |cx: &Context, local: &Local| (local.activities(), local.state(cx));
        self.loops.gather(cx, now, move |cx, gathered| {
            let Some(exports) = me.upgrade() else { return };
            let mut activities = Vec::new();
            let mut loops = Vec::new();
            for (index, result) in gathered.into_iter().enumerate() {
                let (of_loop, state) = result
                    .unwrap_or_else(|| (Vec::new(), LoopState::without_response(exports.loops.name(index))));
                activities.extend(of_loop);
                loops.push(state);
            }
            let entries = exports.entries.borrow();
            let list = List {
                exports: entries
                    .iter()
                    .map(|entry| exports.state(entry, &activities))
                    .collect(),
                loops,
                metrics,
            };
            drop(entries);
            done(cx, list);
        });
    }

    fn state(&self, entry: &Entry, activities: &[Activity]) -> ExportState {
        let export = &entry.export;
        // The activities of the export, one from each of its loops.
        let of_loops = || activities.iter().filter(|activity| activity.id == entry.id);
        ExportState {
            name: export.log_name(),
            thread: self.thread_names(entry),
            socket: export
                .socket
                .as_ref()
                .map(|socket| socket.to_string_lossy().into_owned())
                .unwrap_or_default(),
            disk: export.source.to_string(),
            image: entry.image.get(),
            size: entry.device.disk.size(),
            readonly: export.readonly,
            queues: export.queues,
            connected: of_loops().any(|activity| activity.connected),
            nbd_clients: of_loops().map(|activity| activity.nbd_clients).sum(),
            serving: of_loops().map(|activity| activity.serving).sum(),
            in_flight: of_loops().map(|activity| activity.in_flight).sum(),
            is_leaving: entry.is_leaving.get(),
        }
    }

    /// Passes the statistics of the loops and exports to `done`, without those of loops that do not respond.
    pub(crate) fn snapshot(&self, cx: &Context, done: impl FnOnce(&Context, Snapshot) + 'static) {
        let now = |cx: &Context, local: &Local| (local.export_figures(), local.figures(cx));
        self.loops.gather(cx, now, move |cx, gathered| {
            let mut exports = Vec::new();
            let mut loops = Vec::new();
            for (of_loop, figures) in gathered.into_iter().flatten() {
                exports.extend(of_loop);
                loops.push(figures);
            }
            let snapshot = Snapshot {
                at_ns: cx.now(ClockId::Monotonic).as_nanos(),
                exports: merge(exports),
                loops,
            };
            done(cx, snapshot);
        });
    }

    /// Returns the names of the loops of an export.
    fn thread_names(&self, entry: &Entry) -> String {
        let names: Vec<&str> = entry
            .threads
            .iter()
            .map(|thread| self.loops.name(*thread))
            .collect();
        names.join("+")
    }
}
