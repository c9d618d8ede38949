//! Checks whether the paths of images still name them. A program may have replaced an image by another file, as `rsync` and editors
//! do, or deleted it. The export continues with the file that is open, so the data of its clients are not in the file at that path.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use aio_context::{ClockId, Context};

use super::{Entry, Exports};
use crate::figures::ImageState;
use crate::hosted::ExportId;

/// The time between two checks.
const CHECK_AFTER: Duration = Duration::from_secs(30);
/// The longest wait of a command for a check: a file server may hang.
const MOST_WAIT: Duration = Duration::from_secs(1);

impl Exports {
    /// Starts checking the images, every [`CHECK_AFTER`].
    pub(crate) fn watch_images(&self, cx: &Context) {
        let me = self.me.clone();
        cx.after(CHECK_AFTER, move |cx| {
            if let Some(exports) = me.upgrade() {
                exports.check_images(cx, |_| ());
                exports.watch_images(cx);
            }
        });
    }

    /// Checks the paths of all images, then calls `done`, after [`MOST_WAIT`] at the latest.
    pub(super) fn check_images(&self, cx: &Context, done: impl FnOnce(&Context) + 'static) {
        let entries = self.entries.borrow();
        let images = entries.iter().filter(|entry| entry.device.disk.is_image());
        let images: Vec<_> = images.map(|entry| (entry.id, entry.device.clone())).collect();
        drop(entries);
        // If a file server hangs, at most one check waits for it.
        if images.is_empty() || self.is_checking.replace(true) {
            return done(cx);
        }
        let done = Rc::new(Cell::new(Some(done)));
        let late = done.clone();
        let timer = cx.timer(ClockId::Monotonic, move |cx, _| {
            if let Some(done) = late.take() {
                done(cx);
            }
        });
        let timer = timer.armed_after(MOST_WAIT);
        let check = move || {
            let states = images.iter().map(|(id, device)| (*id, device.disk.image_state()));
            Ok(states.collect::<Vec<_>>())
        };
        let me = self.me.clone();
        self.background.run(cx, check, move |cx, states| {
            drop(timer);
            if let Some(exports) = me.upgrade() {
                exports.is_checking.set(false);
                // If no thread could be started, the states stay as they are.
                for (id, state) in states.unwrap_or_default() {
                    exports.has_image(id, state);
                }
            }
            if let Some(done) = done.take() {
                done(cx);
            }
        });
    }

    /// Returns a warning if the path of this export's image did not name it at the last check.
    pub(crate) fn image_warning(&self, name: &str) -> Option<String> {
        let entries = self.entries.borrow();
        let entry = entries.iter().find(|entry| entry.export.log_name() == name)?;
        entry.image_warning()
    }

    fn has_image(&self, id: ExportId, state: ImageState) {
        let entries = self.entries.borrow();
        if let Some(entry) = entries.iter().find(|entry| entry.id == id) {
            entry.has_image(state);
        }
    }
}

impl Entry {
    /// Records the state of its image, and logs a change.
    pub(super) fn has_image(&self, state: ImageState) {
        if self.image.replace(state) == state {
            return;
        }
        let export = self.export.log_name();
        match self.image_warning() {
            Some(warning) => tracing::warn!(export, "{warning}"),
            None => tracing::info!(export, "{} names the image again", self.export.source),
        }
    }

    fn image_warning(&self) -> Option<String> {
        let disk = &self.export.source;
        match self.image.get() {
            ImageState::InPlace => None,
            ImageState::Replaced => Some(format!(
                "{disk} names another file by now, and the export goes on with the former one; remove the export and add it again, or restart \
                 the daemon, to serve the new file"
            )),
            ImageState::Missing => Some(format!(
                "{disk} names no file any more: the image was renamed or deleted, and the export goes on with it. The data of a deleted image \
                 are lost when the export ends; until then /proc/{}/fd has the file",
                std::process::id()
            )),
        }
    }
}
