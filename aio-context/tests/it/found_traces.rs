//! Traces that random sequences have found, each with the policy that it needs: see [`traces`](crate::traces).

pub(crate) const FOUND: &[(&str, &str)] = &[
    // A one-shot event and the close were lost when a handler panicked because its descriptor was closed.
    (
        "always",
        "on e.readable { }; kick e; on a.end { panic }; watch a r polled; watch e r polled; polling 50; wait 23; closeraw a; \
         replace e e r1 polled; poll; poll",
    ),
    (
        "always",
        "watch a r1; watch b r1; watch c r1; closeraw a; closeraw b; kick c; on a.invalidated { panic }; on b.invalidated { panic }; \
         poll; poll; poll",
    ),
    // The last poll before a sleep finds a handler by which a `poll_end` has replaced another one. So does a round, even if each
    // `poll_begin` replaces a handler.
    (
        "always",
        "on a.end { work e, replace e ee polled }; watch a r polled; watch e r polled; polling 50; wait 12",
    ),
    (
        "ewma",
        "polling 5; watch a r in g polled; on a.begin { work a, replace a a polled }; wait 8",
    ),
    (
        "learned-2",
        "watch e w in h polled; on e.begin { work e, replace e e polled }; polling 50; wait 28",
    ),
    // A hit whose handler a bottom half replaces is no progress: the next iteration's check finds the others, and the new handler.
    (
        "fixed",
        "bh x; polling 20000; on x { replace e e r }; watch e r in h polled; on a.readable { idle x }; watch a r in g; wait 1; \
         work a; poll; work e; wait 17",
    ),
    // The same after a notification that ends polling.
    (
        "learned",
        "bh x; watch p r in g polled; watch a r; watch e r polled; on p.begin { idle x }; polling 50; on x { kick e }; wait 13; wait 1; \
         kick a; wait 7",
    ),
    // A check before a `poll_end` that panics masks a paused handler, so its close is not reported.
    (
        "fixed",
        "polling 50; watch c r polled; pause zz; watch e rp in h polled; wait 4; on e.end { panic }; kick c; wait 8; closeraw c; poll",
    ),
    // All handlers get their `poll_end`, also if one of them panics.
    (
        "always",
        "polling 50; watch a r polled; watch c r polled; watch e r polled; wait 2; on a.end { panic }; wait 4; wait 4",
    ),
    // The hit of a last poll was lost by a panic, a replacement, a pause, a nested poll.
    (
        "ewma",
        "bh x; polling 50; watch a r polled; wait 2; on x { panic }; work a; pause zz; wait 12; resume zz; schedule x; wait 6; poll",
    ),
    (
        "always",
        "bh x; polling 50; watch e r in h polled; wait 13; on x { replace e ee polled }; work e; polling 0; schedule x; poll; poll",
    ),
    (
        "learned-2",
        "watch e rw in h polled; polling 50; bh x; watch a r in g polled; wait 4; on x { wait 10 }; polling 0; work a; schedule x; poll",
    ),
    (
        "ski-rental",
        "polling 5; watch a r polled; on a.end { work e, replace e e polled, work a }; watch e r in h; wait 11; \
         on e.poll_ready { wait 8 }; wait 26; poll",
    ),
    // A handler that paused its group in its `poll_end` was polled while paused, or not after the resume.
    (
        "fixed",
        "watch a r polled; watch e r polled; watch f r polled; polling 50; repeat 40 { work a, wait 1, wait 1 }; on e.end { pause zz }; wait 11",
    ),
    (
        "fixed",
        "watch a r in h polled; on a.end { pause h }; polling 1000; work a; wait 22; polling 0; work a; wait 8; resume h; poll",
    ),
    // The loop slept over work without a kick after a panic of its handler.
    (
        "fixed",
        "watch a r polled; polling 1000; work a; wait 22; polling 0; work a; on a.poll_ready { panic }; wait 8; on a.poll_ready { drain a }; wait 8",
    ),
    // A timer that a `poll_begin` arms ends the search at once, so the next iteration uses its deadline as timeout, even if a
    // `poll_end` disarms it then. (The reference ran that `poll_end` in the first iteration.)
    (
        "always",
        "polling 5; watch e r polled; timer t; on e.begin { arm t 11 }; on e.end { disarm t }; poll; wait 17",
    ),
    (
        "always",
        "polling 5; watch e r polled; watch f r polled; timer t; timer u; on e.begin { arm t 11 }; on f.end { disarm t, arm u 2 }; \
         on e.end { arm t 3 }; poll; wait 17; wait 7",
    ),
    // If polling drains an event before a check collects it, the event masks nothing: the next event of a paused handler wakes the loop
    // once. (In the reference the handler was masked.)
    (
        "always",
        "polling 20000; watch a r1 in h polled; work a; wait 4; work p; pause h; wait 28; polling 50; watch p rw in g; wait 0; \
         work a; wait 7",
    ),
    // A schedule that was not idle let the loop take the next idle one for an urgent one, although it was served (rule H8).
    ("never", "bh x; schedule x; schedule x; poll; delete x; wait 1"),
    (
        "qemu-10",
        "bh x; bh z; schedule x; schedule x; poll; idle z; wait 11",
    ),
    // A panic while a pause begins or ends.
    (
        "learned",
        "polling 20000; watch f w in g polled; watch e - polled; watch d r polled; wait 6; on e.end { pause zz, panic }; \
         pause zz; wait 12",
    ),
    (
        "never",
        "watch a r in g; watch b r in g; pause g; kick a; kick b; poll; closeraw a; on a.invalidated { panic }; resume g; poll; poll",
    ),
];
