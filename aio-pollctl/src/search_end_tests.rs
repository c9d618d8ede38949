//! The end of a search: read or estimated.

use super::*;

#[test]
fn a3_a10_with_a_core_of_its_own_a_hit_costs_no_reading_of_the_clock() {
    let own_core = || {
        let pacing = Pacing::new(true);
        pacing.reset(&PollParams::unlimited().with_exclusive_core(true));
        pacing
    };
    let searched_at = |pacing: &Pacing, at| {
        let mut world = World {
            work_at: Some(at),
            ..World::default()
        };
        let searched = world.search(pacing, 1000);
        (searched, world.now_ns.get(), world.readings.get())
    };
    for at in (200..60_000).step_by(37) {
        let (searched, now_ns, readings) = searched_at(&own_core(), at);
        let estimated_ns = searched.ended_ns.expect("the search took a while");
        let error_ns = now_ns.abs_diff(estimated_ns);
        assert!(searched.hit && error_ns < 1500, "{at}: {searched:?}, {now_ns}");
        let started_ns = ROUND_NS + READING_NS;
        assert_eq!(searched.spun, Duration::from_nanos(estimated_ns - started_ns));

        let (exact, exact_ns, exact_readings) = searched_at(&World::pacing(), at);
        assert_eq!(
            (exact.ended_ns, exact_ns, exact_readings),
            (Some(now_ns + READING_NS), now_ns + READING_NS, readings + 1),
            "contention is looked for: {at}"
        );
    }
}

#[test]
fn a3_a10_the_end_of_a_search_is_read_if_the_pace_is_not_known() {
    let pacing = Pacing::new(true);
    pacing.reset(&PollParams::unlimited().with_exclusive_core(true));
    // In the very first stride, and after one in which the thread did not run.
    for (work_at, stolen) in [(100, None), (3_010_000, Some((10_000, 3_000_000)))] {
        let mut world = World {
            work_at: Some(work_at),
            stolen: Cell::new(stolen),
            ..World::default()
        };
        let searched = world.search(&pacing, 5000);
        assert_eq!(
            (searched.hit, searched.ended_ns),
            (true, Some(world.now_ns.get())),
            "{work_at}"
        );
    }
}

#[test]
fn d6_on_another_clock_the_end_of_a_search_is_read() {
    let pacing = Pacing::new(false);
    pacing.reset(&PollParams::unlimited());
    let mut world = World {
        work_at: Some(20_000),
        ..World::default()
    };
    let searched = world.search(&pacing, 1000);
    assert_eq!(
        (searched.hit, searched.ended_ns),
        (true, Some(world.now_ns.get()))
    );
}
