use super::*;
use aio_context::Wait;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;

/// Replies to each line with its length, at once or in a later iteration.
struct Lengths;

/// Like [`Lengths`], with lines that end like those of HTTP.
struct LongEnds;

impl Protocol for LongEnds {
    fn most_peers(&self) -> usize {
        1
    }
    fn most_request(&self) -> usize {
        1000
    }
    fn request_timeout(&self) -> Option<Duration> {
        None
    }
    fn reply_timeout(&self) -> Duration {
        Duration::from_secs(1)
    }
    fn end_of_request(&self) -> &'static [u8] {
        b"\r\n\r\n"
    }
    fn handle(&self, cx: &Context, request: &[u8], reply: Reply) {
        reply.send(cx, format!("{}\n", request.len()).into_bytes(), false);
    }
    fn too_long(&self) -> Vec<u8> {
        Vec::new()
    }
}

impl Protocol for Lengths {
    fn most_peers(&self) -> usize {
        3
    }
    fn most_request(&self) -> usize {
        100
    }
    fn request_timeout(&self) -> Option<Duration> {
        None
    }
    fn reply_timeout(&self) -> Duration {
        Duration::from_secs(1)
    }
    fn end_of_request(&self) -> &'static [u8] {
        b"\n"
    }
    fn handle(&self, cx: &Context, request: &[u8], reply: Reply) {
        let answer = format!("{}\n", request.len()).into_bytes();
        match request[0] {
            b'n' => reply.send(cx, answer, false),
            b'l' => cx.defer(|cx| reply.send(cx, answer, false)),
            // The reply is dropped.
            _ => {}
        }
    }
    fn too_long(&self) -> Vec<u8> {
        b"too long\n".to_vec()
    }
}

fn join(cx: &Context, peers: &Peers) -> UnixStream {
    let (own, daemons) = UnixStream::pair().unwrap();
    daemons.set_nonblocking(true).unwrap();
    own.set_nonblocking(true).unwrap();
    peers.join(cx, daemons.into()).unwrap();
    own
}

/// Polls until there is no more work, and reads the replies.
fn replies(cx: &Context, client: &mut UnixStream) -> String {
    let mut text = Vec::new();
    loop {
        let progress = cx.poll(Wait::NoBlock).unwrap();
        let mut part = [0; 512];
        match client.read(&mut part) {
            Ok(0) => break text.extend(b"(end)"),
            Ok(count) => text.extend(&part[..count]),
            Err(_) if progress => {}
            Err(_) => break,
        }
    }
    String::from_utf8(text).unwrap()
}

#[test]
fn however_requests_are_cut_each_is_answered_once_and_in_order() {
    let (cx, peers) = (Context::new().unwrap(), Peers::new(Lengths));
    let mut random = fastrand::Rng::with_seed(21);
    let mut client = join(&cx, &peers);
    for _ in 0..50 {
        let (mut text, mut expected) = (Vec::new(), String::new());
        for _ in 0..random.usize(1..20) {
            let len = random.usize(2..=100);
            text.push(if random.bool() { b'n' } else { b'l' });
            text.extend(vec![b'x'; len - 2]);
            text.push(b'\n');
            expected += &format!("{len}\n");
        }
        let mut answers = String::new();
        let mut rest = &text[..];
        while !rest.is_empty() {
            let (part, after) = rest.split_at(random.usize(1..=rest.len()));
            client.write_all(part).unwrap();
            answers += &replies(&cx, &mut client);
            rest = after;
        }
        assert_eq!(answers, expected);
    }
}

/// Searched bytes are not searched again, for every division of the end of a request.
#[test]
fn a_request_that_arrives_byte_by_byte_is_searched_once() {
    let (cx, peers) = (Context::new().unwrap(), Peers::new(LongEnds));
    let mut client = join(&cx, &peers);
    for request in ["\r\n\r\n", "\r\n\r\r\n\r\n", "GET / HTTP/1.1\r\nHost: a\r\n\r\n"] {
        let mut answers = String::new();
        for (sent, byte) in request.as_bytes().iter().enumerate() {
            let peer = peers.connected.borrow()[0].clone();
            assert!(peer.searched.get() + 3 >= sent, "{request:?}: {sent} bytes");
            assert_eq!(answers, "", "{request:?}: after {sent} bytes");
            client.write_all(&[*byte]).unwrap();
            answers += &replies(&cx, &mut client);
        }
        assert_eq!(answers, format!("{}\n", request.len()));
    }
}

#[test]
fn each_connection_ends_in_its_way() {
    let (cx, peers) = (Context::new().unwrap(), Peers::new(Lengths));
    for (sent, answer) in [
        ("n\nn", "2\n(end)"),
        ("?\nn\n", "(end)"),
        (&*"x".repeat(101), "too long\n(end)"),
        (&*format!("n\n{}\nn\n", "x".repeat(100)), "2\ntoo long\n(end)"),
        ("", "(end)"),
    ] {
        let mut client = join(&cx, &peers);
        client.write_all(sent.as_bytes()).unwrap();
        client.shutdown(std::net::Shutdown::Write).unwrap();
        assert_eq!(replies(&cx, &mut client), answer, "{sent:?}");
    }
    assert!(peers.connected.borrow().is_empty());
}

#[test]
fn the_client_that_was_silent_for_longest_gives_way() {
    let (cx, peers) = (Context::new().unwrap(), Peers::new(Lengths));
    let mut clients: Vec<UnixStream> = (0..3).map(|_| join(&cx, &peers)).collect();
    clients[0].write_all(b"n\n").unwrap();
    assert_eq!(replies(&cx, &mut clients[0]), "2\n");
    let mut another = join(&cx, &peers);
    assert_eq!(replies(&cx, &mut clients[1]), "(end)");
    for client in [&mut another, &mut clients[0]] {
        client.write_all(b"l\n").unwrap();
        assert_eq!(replies(&cx, client), "2\n");
    }
    assert_eq!(peers.connected.borrow().len(), 3);
    peers.close();
    assert_eq!(replies(&cx, &mut another), "(end)");
}
