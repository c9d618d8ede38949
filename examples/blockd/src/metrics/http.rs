//! [`Http`]: the part of HTTP that serves one page. Each connection has one request.

use std::time::Duration;

use aio_context::Context;
use aio_metrics::ContextCollector;

use super::page::page;
use crate::background::Background;
use crate::figures::Snapshot;
use crate::peers::{Protocol, Reply};

/// The most connections.
const MOST_CLIENTS: usize = 16;
/// The most bytes of a request.
const MOST_REQUEST: usize = 8 << 10;
/// The time for a client to send its request.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);
/// The time for a client to read the page.
const REPLY_TIMEOUT: Duration = Duration::from_secs(10);

/// The end of a request's head.
const END: &[u8] = b"\r\n\r\n";

/// Receives the figures of the daemon, now or later.
pub(super) type OnSnapshot = Box<dyn FnOnce(&Context, Snapshot)>;

/// The protocol of the metrics' port.
pub(super) struct Http<F> {
    background: Background,
    contexts: ContextCollector,
    figures: F,
}

impl<F: Fn(&Context, OnSnapshot)> Http<F> {
    pub(super) fn new(background: Background, contexts: ContextCollector, figures: F) -> Self {
        Self {
            background,
            contexts,
            figures,
        }
    }

    fn send_page(&self, cx: &Context, is_head: bool, reply: Reply) {
        let (background, contexts) = (self.background.clone(), self.contexts.clone());
        let show = move |cx: &Context, snapshot| {
            // A page of thousands of queues takes some time to format.
            let format = move || Ok(page(snapshot, contexts)?);
            background.run(cx, format, move |cx, page| {
                let answer = match page {
                    Ok(page) => answer("200 OK", "", &page, is_head),
                    Err(error) => answer("500 Internal Server Error", "", &format!("{error:#}\n"), is_head),
                };
                reply.send(cx, answer, true);
            });
        };
        (self.figures)(cx, Box::new(show));
    }
}

/// The request of a client.
#[derive(Debug, PartialEq)]
enum Request {
    /// The page, or only its head.
    Page { is_head: bool },
    /// An error: a status, more of the head, and the text.
    Error(&'static str, &'static str, &'static str),
}

fn parse(request: &[u8]) -> Request {
    let malformed = Request::Error("400 Bad Request", "", "not a request of HTTP; GET /metrics\n");
    let line = request.split(|byte| *byte == b'\r').next().unwrap_or_default();
    let mut words = line.split(|byte| *byte == b' ');
    let (Some(method), Some(target), Some(version), None) =
        (words.next(), words.next(), words.next(), words.next())
    else {
        return malformed;
    };
    if !version.starts_with(b"HTTP/1.") {
        return malformed;
    }
    let path = target.split(|byte| *byte == b'?').next().unwrap_or_default();
    match (method, path) {
        (b"GET", b"/metrics") => Request::Page { is_head: false },
        (b"HEAD", b"/metrics") => Request::Page { is_head: true },
        (_, b"/metrics") => Request::Error(
            "405 Method Not Allowed",
            "Allow: GET, HEAD\r\n",
            "only GET and HEAD\n",
        ),
        _ => Request::Error("404 Not Found", "", "see /metrics\n"),
    }
}

fn answer(status: &str, more: &str, body: &str, is_head: bool) -> Vec<u8> {
    let length = body.len();
    let body = if is_head { "" } else { body };
    format!(
        "HTTP/1.1 {status}\r\nContent-Type: text/plain; version=0.0.4; charset=utf-8\r\nContent-Length: {length}\r\n\
         {more}Connection: close\r\n\r\n{body}"
    )
    .into_bytes()
}

impl<F: Fn(&Context, OnSnapshot) + 'static> Protocol for Http<F> {
    fn most_peers(&self) -> usize {
        MOST_CLIENTS
    }

    fn most_request(&self) -> usize {
        MOST_REQUEST
    }

    fn request_timeout(&self) -> Option<Duration> {
        Some(REQUEST_TIMEOUT)
    }

    fn reply_timeout(&self) -> Duration {
        REPLY_TIMEOUT
    }

    fn end_of_request(&self) -> &'static [u8] {
        END
    }

    fn handle(&self, cx: &Context, request: &[u8], reply: Reply) {
        match parse(request) {
            Request::Page { is_head } => self.send_page(cx, is_head, reply),
            Request::Error(status, more, text) => reply.send(cx, answer(status, more, text, false), true),
        }
    }

    fn too_long(&self) -> Vec<u8> {
        answer("431 Request Header Fields Too Large", "", "too long\n", false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_of_http() {
        let status = |text: &str| match parse(text.as_bytes()) {
            Request::Page { is_head: false } => "GET",
            Request::Page { is_head: true } => "HEAD",
            Request::Error(status, ..) => status,
        };
        assert_eq!(status("GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n"), "GET");
        assert_eq!(status("GET /metrics?x=y HTTP/1.0\r\n\r\n"), "GET");
        assert_eq!(status("HEAD /metrics HTTP/1.1\r\n\r\n"), "HEAD");
        assert_eq!(status("POST /metrics HTTP/1.1\r\n\r\n"), "405 Method Not Allowed");
        assert_eq!(status("GET / HTTP/1.1\r\n\r\n"), "404 Not Found");
        for wrong in [
            "\r\n\r\n",
            "GET /metrics\r\n\r\n",
            "GET /metrics HTTP/2\r\n\r\n",
            "GET  /metrics HTTP/1.1\r\n\r\n",
        ] {
            assert_eq!(status(wrong), "400 Bad Request", "{wrong:?}");
        }
    }
}
