//! Rule G3: the tests of `aio-context`, and the original's cases with tasks, in a real main loop of GLib, and
//! tests of GLib's own behaviour.
//!
//! A body that runs plain and in a hand-written foreign loop there runs here on every backend, with polling off and on.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

#[path = "../../../aio-context/tests/it/common.rs"]
#[allow(dead_code, reason = "the other suites use more of it")]
mod common;
mod kinds;
mod main_context;
mod main_loop;
mod own;
#[path = "../../../aio-context/tests/it/polling.rs"]
#[allow(dead_code, reason = "the other suites use more of it")]
mod polling;

#[path = "../../../aio-context/tests/it/after.rs"]
mod after;
#[path = "../../../aio-context/tests/it/bottom_halves.rs"]
mod bottom_halves;
#[path = "../../../aio-context/tests/it/bursts.rs"]
mod bursts;
#[path = "../../../aio-context/tests/it/dispatch.rs"]
mod dispatch;
#[path = "../../../aio-context/tests/it/edges.rs"]
mod edges;
#[path = "../../../aio-context/tests/it/equivalents.rs"]
mod equivalents;
#[path = "../../../aio-context/tests/it/events.rs"]
mod events;
#[path = "../../../aio-context/tests/it/pausing.rs"]
mod pausing;
#[path = "../../../aio-context/tests/it/registry.rs"]
mod registry;
#[path = "../../../aio-context/tests/it/remote.rs"]
mod remote;
#[path = "../../../aio-context/tests/it/replacing.rs"]
mod replacing;
#[path = "../../../aio-context/tests/it/running.rs"]
mod running;
#[path = "../../../aio-context/tests/it/sources.rs"]
mod sources;
#[path = "../../../aio-context/tests/it/stats.rs"]
mod stats;
#[path = "../../../aio-context/tests/it/timers.rs"]
mod timers;
#[path = "../../../aio-context/tests/it/waits.rs"]
mod waits;
#[path = "../../../aio-context/tests/it/wall.rs"]
mod wall;

#[path = "../../../aio-executor/tests/it/equivalents.rs"]
mod tasks;
