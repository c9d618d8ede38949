//! Deferred work of the simulated user: bottom halves and timers.

use std::rc::Rc;
use std::time::Duration;

use aio_context::{ClockId, Context, Moment, Timer};

use crate::action::Action;
use crate::ops::MOST;
use crate::plant::Plant;
use crate::world::{self, Alarm, Armed, Half, Owed, World};

impl World {
    pub(crate) fn disturb_half(&self, cx: &Context) {
        let halves = self.halves.borrow();
        let some = (!halves.is_empty()).then(|| halves[self.below(halves.len() as u64) as usize].id);
        let count = halves.len();
        drop(halves);
        match (self.below(12), some) {
            (0..3, _) | (_, None) if count < MOST => self.new_half(cx),
            (3, Some(id)) => self.act(Action::Cancel(id)),
            (4, Some(id)) => self.act(Action::Delete(id)),
            (5..7, Some(id)) => self.act(Action::ScheduleIdle(id)),
            (7..9, Some(id)) => self.plan(Action::Schedule(id), self.below(2_000_000)),
            (_, Some(id)) => self.act(Action::Schedule(id)),
            _ => {}
        }
    }

    fn new_half(&self, cx: &Context) {
        let (id, owed) = (self.id() as u32, Rc::<Owed>::default());
        let promise = owed.clone();
        let handle = cx.bottom_half("simulated", move |cx| {
            let world = world::here();
            world.called();
            world.record(|| format!("bottom half {id}"), u64::from(id));
            let was_owed = promise.since.take().is_some() | promise.idle.take();
            world.require(was_owed, || {
                format!("I6: bottom half {id} runs and was not scheduled")
            });
            world.require(!promise.deleted.get(), || {
                format!("H6: bottom half {id} runs after it was deleted")
            });
            if world.plant == Some(Plant::RunTwice) && world.one_in(8) {
                world.on_half_quietly(id);
            }
            world.maybe_panic();
            if !world.quiet.get() && world.one_in(6) {
                world.act(Action::Schedule(id));
            }
            world.user_code(cx);
        });
        let mut all = self.owed_halves.borrow_mut();
        all.retain(|owed| Rc::strong_count(owed) > 1);
        all.push(owed.clone());
        self.halves.borrow_mut().push(Half { id, handle, owed });
    }

    fn on_half_quietly(&self, id: u32) {
        let halves = self.halves.borrow();
        if let Some(half) = halves.iter().find(|half| half.id == id) {
            half.handle.schedule();
        }
    }

    pub(crate) fn disturb_timer(&self, cx: &Context) {
        let mut alarms = self.alarms.borrow_mut();
        if alarms.is_empty() || (alarms.len() < MOST && self.one_in(4)) {
            drop(alarms);
            let alarm = self.new_alarm(cx);
            self.arm(&alarm.timer, &alarm.state, false);
            self.alarms.borrow_mut().push(alarm);
            return;
        }
        let place = self.below(alarms.len() as u64) as usize;
        let alarm = alarms.swap_remove(place);
        drop(alarms);
        match self.below(10) {
            0 => {
                self.record(|| format!("timer {} is dropped", alarm.state.id), 47);
                alarm.state.dropped.set(true);
                return;
            }
            1 => {
                self.record(|| format!("timer {} is cancelled", alarm.state.id), 50);
                alarm.timer.cancel();
                alarm.state.deadline.set(None);
            }
            2..4 => self.arm(&alarm.timer, &alarm.state, true),
            _ => self.arm(&alarm.timer, &alarm.state, false),
        }
        self.alarms.borrow_mut().push(alarm);
    }

    fn new_alarm(&self, cx: &Context) -> Alarm {
        let is_virtual = self.one_in(3);
        let state = Rc::new(Armed {
            id: self.id(),
            is_virtual,
            ..Armed::default()
        });
        let mut all = self.owed_alarms.borrow_mut();
        all.retain(|armed| Rc::strong_count(armed) > 1);
        all.push(state.clone());
        drop(all);
        let promise = state.clone();
        let clock = if is_virtual {
            ClockId::Virtual
        } else {
            ClockId::Monotonic
        };
        let timer = cx
            .timer(clock, move |cx, timer| world::here().fired(cx, timer, &promise))
            .disarmed();
        Alarm { timer, state }
    }

    fn arm(&self, timer: &Timer, state: &Armed, only_earlier: bool) {
        let delay = match self.below(16) {
            0 => 0,
            1 => 86_400_000_000_000 * self.below(30),
            2 => u64::MAX,
            3..8 => self.below(100_000),
            _ => self.below(20_000_000),
        };
        let before = state.deadline.get();
        if only_earlier {
            let now = self.cx().map_or(0, |cx| cx.now(timer.clock()).as_nanos());
            timer.anticipate(Moment::from_nanos(now.saturating_add(delay)));
        } else {
            timer.arm_after(Duration::from_nanos(delay));
        }
        let deadline = timer.deadline().map(Moment::as_nanos);
        self.record(
            || format!("timer {} is armed for {deadline:?}", state.id),
            deadline.unwrap_or(0),
        );
        self.require(deadline.is_some(), || {
            "T3: an armed timer has no deadline".to_owned()
        });
        if !only_earlier || deadline != before {
            state.deadline.set(deadline);
            state.order.set(self.id());
            state.tick.set(self.tick.get());
        }
    }

    fn fired(&self, cx: &Context, timer: &Timer, state: &Armed) {
        self.called();
        let deadline = state.deadline.take();
        self.record(
            || format!("timer {} fires that was due at {deadline:?}", state.id),
            48,
        );
        let Some(deadline) = deadline else {
            self.fail("T3: a timer fires that is not armed".to_owned());
        };
        self.require(!state.dropped.get(), || {
            "I2: a timer fires after its drop".to_owned()
        });
        let now = self.now_on(state.is_virtual);
        self.require(now.is_none_or(|now| now >= deadline), || {
            format!("I5: a timer fires {} ns early", deadline - now.unwrap_or(0))
        });
        let tick = self.levels.borrow().last().map_or(0, |level| level.tick);
        for other in self.owed_alarms.borrow().iter() {
            let Some(at) = other.deadline.get() else { continue };
            let is_before = (at, other.order.get()) < (deadline, state.order.get());
            let competes =
                other.is_virtual == state.is_virtual && !other.dropped.get() && other.tick.get() < tick;
            self.require(!(is_before && competes), || {
                format!("I5: a timer due at {deadline} fires before one due at {at}")
            });
        }
        self.maybe_panic();
        if !self.quiet.get() && self.one_in(3) {
            self.arm(timer, state, false);
        }
        self.user_code(cx);
    }
}
