//! [`ByType`]: polled handlers, in an array for each type of them.
//!
//! To ask a handler through a `dyn` reference costs a load of its table, some reckoning where its value lies, and an indirect call:
//! three times what most of them take to answer. A loop has many handlers of few types (a thousand queues of one
//! device). So handlers of one type lie in one array, and the loop over it is compiled with their `poll` inside. Only the
//! call of that loop is indirect.
//!
//! It decides nothing about when to ask, and does not know why somebody is not to be asked.

use std::any::{Any, TypeId};
use std::ops::ControlFlow;
use std::rc::Rc;

use aio_backend::Token;
use aio_handlers::HotSet;

use crate::handler::Pollable;
use crate::hot::Hot;

/// A polled handler that knows which array it belongs to.
pub(crate) trait Join: Pollable {
    /// Enters its array.
    fn join(self: Rc<Self>, token: Token, set: &mut ByType);
}

impl<H: Pollable> Join for H {
    fn join(self: Rc<Self>, token: Token, set: &mut ByType) {
        set.of_type::<H>().insert(token, self);
    }
}

/// Where a round goes on: which array, and where in it.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Place {
    array: usize,
    at: usize,
}

/// What is told who said yes, and says whether to go on.
type Hit<'a> = dyn FnMut(Token) -> ControlFlow<()> + 'a;

/// All polled handlers of one type.
trait Array {
    fn of(&self) -> TypeId;
    fn as_any(&mut self) -> &mut dyn Any;
    fn len(&self) -> usize;
    fn remove(&mut self, token: Token) -> Option<Rc<dyn Pollable>>;
    /// Asks those from `from` to before `to`; breaks with the next one's place if `hit` does.
    fn ask(&self, hot: &Hot, from: usize, to: usize, skips: bool, hit: &mut Hit<'_>) -> ControlFlow<usize>;
    fn walk(&self, each: &mut dyn FnMut(Token, &dyn Pollable));
}

impl<H: Pollable> Array for HotSet<Rc<H>> {
    fn of(&self) -> TypeId {
        TypeId::of::<H>()
    }

    fn as_any(&mut self) -> &mut dyn Any {
        self
    }

    fn len(&self) -> usize {
        Self::len(self)
    }

    fn remove(&mut self, token: Token) -> Option<Rc<dyn Pollable>> {
        match Self::remove(self, token) {
            Some(handler) => Some(handler),
            None => None,
        }
    }

    fn ask(&self, hot: &Hot, from: usize, to: usize, skips: bool, hit: &mut Hit<'_>) -> ControlFlow<usize> {
        let entries = self.entries();
        let entries = &entries[from.min(entries.len())..to.min(entries.len())];
        for (token, handler) in entries {
            // Read each time: who has just been asked may have removed the next one.
            if (skips || hot.is_dirty()) && hot.is_out(*token, skips) {
                continue;
            }
            if handler.poll() && hit(*token).is_break() {
                let place = self.entries().iter().position(|(other, _)| other == token);
                return ControlFlow::Break(place.map_or(0, |place| place + 1));
            }
        }
        ControlFlow::Continue(())
    }

    fn walk(&self, each: &mut dyn FnMut(Token, &dyn Pollable)) {
        for (token, handler) in self.entries() {
            each(*token, &**handler);
        }
    }
}

/// The arrays. One that has become empty stays: its type will come again.
#[derive(Default)]
pub(crate) struct ByType(Vec<Box<dyn Array>>);

impl ByType {
    pub(crate) fn insert(&mut self, token: Token, handler: Rc<dyn Join>) {
        handler.join(token, self);
    }

    /// Takes a handler out. Whoever gets it drops it where that may do anything.
    pub(crate) fn remove(&mut self, token: Token) -> Option<Rc<dyn Pollable>> {
        self.0.iter_mut().find_map(|array| array.remove(token))
    }

    pub(crate) fn len(&self) -> usize {
        self.0.iter().map(|array| array.len()).sum()
    }

    /// Asks everybody once, beginning at `start`; breaks if `hit` does, with the place where the next round goes on.
    #[inline]
    pub(crate) fn ask(&self, hot: &Hot, start: Place, skips: bool, hit: &mut Hit<'_>) -> ControlFlow<Place> {
        if let [array] = &*self.0
            && start.at == 0
        {
            return place(0, array.ask(hot, 0, usize::MAX, skips, hit));
        }
        self.ask_in_turn(hot, start, skips, hit)
    }

    #[inline(never)]
    fn ask_in_turn(&self, hot: &Hot, start: Place, skips: bool, hit: &mut Hit<'_>) -> ControlFlow<Place> {
        let count = self.0.len();
        let first = start.array.min(count);
        for index in (first..count).chain(0..first) {
            let from = if index == first { start.at } else { 0 };
            place(index, self.0[index].ask(hot, from, usize::MAX, skips, hit))?;
        }
        match self.0.get(first) {
            Some(array) => place(first, array.ask(hot, 0, start.at, skips, hit)),
            None => ControlFlow::Continue(()),
        }
    }

    /// Calls `each` for everybody.
    pub(crate) fn walk(&self, each: &mut dyn FnMut(Token, &dyn Pollable)) {
        for array in &self.0 {
            array.walk(each);
        }
    }

    /// The array of handlers of this type.
    fn of_type<H: Pollable>(&mut self) -> &mut HotSet<Rc<H>> {
        let known = self.0.iter().position(|array| array.of() == TypeId::of::<H>());
        let index = known.unwrap_or_else(|| {
            self.0.push(Box::new(HotSet::<Rc<H>>::new()));
            self.0.len() - 1
        });
        #[expect(clippy::expect_used, reason = "an array tells its own type")]
        self.0[index]
            .as_any()
            .downcast_mut()
            .expect("the array of this type")
    }
}

#[inline]
fn place(array: usize, asked: ControlFlow<usize>) -> ControlFlow<Place> {
    asked.map_break(|at| Place { array, at })
}
