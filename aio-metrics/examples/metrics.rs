//! A loop that serves its own statistics: `GET /metrics` on a loopback port, for Prometheus.
//!
//! `cargo run -p aio-metrics --example metrics` prints the address, and ends with its standard input.

use std::cell::RefCell;
use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::rc::Rc;
use std::time::Duration;

use aio_context::{Action, ClockId, Context, Registration};
use aio_metrics::ContextCollector;
use aio_sources::Listener;
use prometheus_client::{encoding::prometheus_text, registry::Registry};

/// A longer request is refused.
const LONGEST: usize = 8 << 10;
/// A client that takes longer is disconnected.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Answers a request, once it is complete.
fn answer(mut client: &TcpStream, request: &mut Vec<u8>, registry: &Registry) -> io::Result<Action> {
    let mut part = [0; 1024];
    match client.read(&mut part) {
        Ok(0) => return Ok(Action::Remove),
        Ok(length) => request.extend_from_slice(&part[..length]),
        Err(why) if why.kind() == io::ErrorKind::WouldBlock => return Ok(Action::Continue),
        Err(why) => return Err(why),
    }
    let is_complete = request.windows(4).any(|end| end == b"\r\n\r\n");
    if !is_complete && request.len() < LONGEST {
        return Ok(Action::Continue);
    }
    let (status, page) = if is_complete && request.starts_with(b"GET /metrics ") {
        let mut page = String::new();
        prometheus_text::encode(&mut page, registry).map_err(io::Error::other)?;
        ("200 OK", page)
    } else {
        ("404 Not Found", "see /metrics\n".to_owned())
    };
    let length = page.len();
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Type: text/plain; version=0.0.4\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n"
    );
    // The page is shorter than the buffer of a new connection, so a write that would block is an error here.
    client.write_all((head + &page).as_bytes())?;
    Ok(Action::Remove)
}

fn main() -> io::Result<()> {
    let cx = Context::builder()
        .slow_callback_limit(Duration::from_millis(50))
        .build()?;
    // ANCHOR: registry
    let (contexts, mut registry) = (ContextCollector::new(), Registry::default());
    contexts.add("main", cx.remote());
    registry.register_collector(Box::new(contexts));
    let registry = Rc::new(registry);
    // ANCHOR_END: registry

    let tick = cx.timer(ClockId::Monotonic, |_, timer| {
        timer.arm_after(Duration::from_millis(10))
    });
    let _tick = tick.named("tick").armed_after(Duration::ZERO);
    let input = cx.on(io::stdin()).ready(|_, cx, _| {
        cx.stop();
        Action::Remove
    });
    input.watch()?.detach();

    let socket = TcpListener::bind("127.0.0.1:0")?;
    println!("http://{}/metrics", socket.local_addr()?);
    let clients = Rc::new(RefCell::new(HashMap::<_, Registration>::new()));
    let _listener = Listener::new(&cx, socket, move |cx, client, from| {
        let (request, registry) = (RefCell::default(), registry.clone());
        let serve = move |client: &TcpStream, _: &Context, _| {
            answer(client, &mut request.borrow_mut(), &registry).unwrap_or(Action::Remove)
        };
        // ANCHOR: handler
        let Ok(watched) = cx.on(client).ready(serve).watch() else {
            return;
        };
        if let Err(why) = watched.measure("clients") {
            println!("cannot measure {from}: {why}");
        }
        // ANCHOR_END: handler
        clients.borrow_mut().insert(from, watched);
        let clients = clients.clone();
        cx.after(TIMEOUT, move |_| drop(clients.borrow_mut().remove(&from)));
    })?;
    cx.run()
}
