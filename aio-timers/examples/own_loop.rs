//! A hand-written loop of timers on a simulated clock: an hour passes at once.

use std::sync::Arc;
use std::time::Duration;

use aio_timers::{Clock, ManualClock, TimerId, TimerSet, VirtualClock};

/// The loop. Each callback gets it together with its timer.
struct Loop(TimerSet<Callback, VirtualClock>);

type Callback = Box<dyn Fn(&Loop, TimerId)>;

impl Loop {
    /// Waits and fires until no timer is armed.
    fn run(&self) {
        while let Some(left) = self.0.time_left() {
            if !self.0.clock().pass(left) {
                std::thread::sleep(left); // a real clock
            }
            self.0.fire_due(|callback, id| callback(self, id));
        }
    }
}

pub(crate) fn main() {
    let hardware = Arc::new(ManualClock::new());
    let own = Loop(TimerSet::new(VirtualClock::new(hardware)));
    let heartbeat = own.0.insert(Box::new(|own, id| {
        println!("heartbeat at {:?}", own.0.clock().now());
        own.0.arm_after(id, Duration::from_secs(600)); // periodic: it re-arms itself
    }));
    let end = own.0.insert(Box::new(move |own, id| {
        println!("the end at {:?}", own.0.clock().now());
        own.0.remove(heartbeat); // another timer, and
        own.0.remove(id); // the one that is firing
    }));
    own.0.arm_after(heartbeat, Duration::from_secs(600));
    own.0.arm_after(end, Duration::from_secs(3600));
    own.run();
    assert!(own.0.is_empty());
}
