use std::io::PipeReader;
use std::time::Duration;

use aio_context::{ClockId, Context, HandlerStats, Policy, PollParams, Registration, Stats, Wait};
use aio_metrics::ContextCollector;
use aio_testing::Bench;
use prometheus_client::encoding::{prometheus_text, text};
use prometheus_client::registry::Registry;

use crate::page::Page;

fn registry(contexts: &ContextCollector) -> Registry {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(contexts.clone()));
    registry
}

/// Returns the page in both formats, which have the same samples.
fn pages(registry: &Registry) -> [Page; 2] {
    let (mut prometheus, mut open_metrics) = (String::new(), String::new());
    prometheus_text::encode(&mut prometheus, registry).unwrap();
    text::encode(&mut open_metrics, registry).unwrap();
    let pages = [prometheus, open_metrics].map(|page| Page::parse(&page));
    assert_eq!(pages[0].samples, pages[1].samples);
    pages
}

/// Returns the expected samples of a context.
fn of_context(stats: Stats) -> [(&'static str, f64); 14] {
    let count = |figure: u64| figure as f64;
    [
        ("aio_iterations_total", count(stats.iterations)),
        ("aio_events_total", count(stats.events)),
        ("aio_kicks_total", count(stats.kicks)),
        ("aio_sleeps_total", count(stats.blocked)),
        ("aio_sleep_seconds_total", stats.slept.as_secs_f64()),
        ("aio_poll_hits_total", count(stats.poll_hits)),
        ("aio_poll_misses_total", count(stats.poll_misses)),
        ("aio_poll_suspensions_total", count(stats.poll_suspensions)),
        ("aio_poll_seconds_total", stats.spun.as_secs_f64()),
        ("aio_poll_budget_seconds", stats.budget.as_secs_f64()),
        ("aio_wakeups_sent_total", count(stats.wakeups_sent)),
        ("aio_wakeups_accepted_total", count(stats.wakeups_accepted)),
        ("aio_wakeups_elided_total", count(stats.wakeups_elided)),
        ("aio_slow_callbacks_total", count(stats.slow_callbacks)),
    ]
}

fn of_handler(stats: HandlerStats) -> [(&'static str, f64); 5] {
    [
        ("aio_handler_events_total", stats.events as f64),
        ("aio_handler_poll_hits_total", stats.poll_hits as f64),
        ("aio_handler_kicks_total", stats.kicks as f64),
        ("aio_handler_busy_seconds_total", stats.busy.as_secs_f64()),
        ("aio_handler_slow_callbacks_total", stats.slow_callbacks as f64),
    ]
}

/// Watches a descriptor that is always readable, with a handler that takes a millisecond.
fn always(cx: &Context, takes: impl Fn() + 'static) -> Registration {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(writer);
    let watched = cx.on(reader).readable(move |_: &PipeReader, _| takes()).watch();
    watched.unwrap()
}

#[test]
fn m1_m2_a_page_has_what_stats_have() {
    let (builder, clock) = Bench::EPOLL.on_simulated_time();
    let fixed = Policy::by_name("fixed", PollParams::OFF).unwrap();
    let builder = builder.slow_callback_limit(Duration::from_millis(2));
    let cx = builder.policy(Box::new(fixed)).build().unwrap();
    let takes = |ms| {
        let clock = clock.clone();
        move || clock.advance(Duration::from_millis(ms))
    };
    let (disk, net) = (always(&cx, takes(3)), always(&cx, takes(1)));
    let (of_disk, of_net) = (disk.measure("disk").unwrap(), net.measure("net").unwrap());
    let contexts = ContextCollector::new();
    let registry = registry(&contexts);
    assert!(pages(&registry)[0].samples.is_empty());
    assert!(contexts.add("io-0", cx.remote()).is_none());
    let idle = Context::new().unwrap();
    assert!(contexts.add("idle", idle.remote()).is_none());

    for _ in 0..5 {
        assert!(cx.poll(Wait::NoBlock).unwrap());
    }
    drop(net);
    cx.set_poll_params(PollParams::up_to(Duration::from_micros(20)));
    let timer = cx.timer(ClockId::Monotonic, |_, _| {}).disarmed();
    disk.set_interest(aio_context::Interest::NONE).unwrap();
    for _ in 0..3 {
        timer.arm_after(Duration::from_secs(1));
        while !cx.poll(Wait::Block).unwrap() {}
    }
    let stats = cx.remote().stats();
    assert!(
        stats.events == 10 && stats.slow_callbacks == 5 && stats.blocked == 3,
        "{stats:?}"
    );
    assert!(
        !stats.slept.is_zero() && !stats.spun.is_zero() && !stats.budget.is_zero(),
        "{stats:?}"
    );

    // Another thread reads, while the loop is here.
    let [page, _] = std::thread::scope(|scope| scope.spawn(|| pages(&registry)).join().unwrap());
    let mut expected = Vec::new();
    for (name, stats) in [("io-0", stats), ("idle", idle.remote().stats())] {
        let labelled = |(metric, value)| (format!("{metric}{{context=\"{name}\"}}"), value);
        expected.extend(of_context(stats).map(labelled));
    }
    for metrics in [&of_disk, &of_net] {
        let name = metrics.name();
        let labelled = |(metric, value)| (format!("{metric}{{context=\"io-0\",handler=\"{name}\"}}"), value);
        expected.extend(of_handler(metrics.stats()).map(labelled));
    }
    assert_eq!(page.samples, expected.into_iter().collect());
    assert_eq!(
        page.value("aio_handler_busy_seconds_total{context=\"io-0\",handler=\"disk\"}"),
        0.015
    );
    for (metric, kind) in &page.types {
        let expected = if metric == "aio_poll_budget_seconds" {
            "gauge"
        } else {
            "counter"
        };
        assert_eq!(kind, expected, "{metric}");
        assert!(metric.ends_with("_total") || kind == "gauge", "{metric}");
    }
}

#[test]
fn m2_handlers_with_one_name_are_one_series() {
    let cx = Context::new().unwrap();
    let contexts = ContextCollector::new();
    contexts.add("io", cx.remote());
    let registry = registry(&contexts);
    let clients: Vec<_> = (0..3).map(|_| always(&cx, || ())).collect();
    clients
        .iter()
        .for_each(|client| drop(client.measure("client").unwrap()));
    assert!(cx.poll(Wait::NoBlock).unwrap());
    let series = "aio_handler_events_total{context=\"io\",handler=\"client\"}";
    assert_eq!(pages(&registry)[0].value(series), 3.0);
    drop(clients);
    assert!(!pages(&registry)[0].samples.contains_key(series));
}

#[test]
fn m2_names_are_escaped_and_a_prefix_comes_first() {
    let cx = Context::new().unwrap();
    let contexts = ContextCollector::new();
    contexts.add("a \"b\" \\ c\nd", cx.remote());
    let mut registry = Registry::with_prefix("blockd");
    registry.register_collector(Box::new(contexts));
    let series = "blockd_aio_iterations_total{context=\"a \\\"b\\\" \\\\ c\\nd\"}";
    assert_eq!(pages(&registry)[0].value(series), 0.0);
}

#[test]
fn m1_contexts_come_and_go() {
    let contexts = ContextCollector::new();
    let registry = registry(&contexts);
    let series = "aio_iterations_total{context=\"io\"}";
    let (first, second) = (Context::new().unwrap(), Context::new().unwrap());
    assert!(contexts.add("io", first.remote()).is_none());
    first.poll(Wait::NoBlock).unwrap();
    drop(first);
    assert_eq!(pages(&registry)[0].value(series), 1.0, "its last figures");
    let former = contexts.add("io", second.remote());
    assert!(former.is_some_and(|former| !former.is_same(&second.remote())));
    assert_eq!(pages(&registry)[0].value(series), 0.0);
    assert!(contexts.remove("io").is_some() && contexts.remove("io").is_none());
    assert!(pages(&registry)[0].samples.is_empty());
}
