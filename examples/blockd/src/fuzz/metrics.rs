//! An arbitrary HTTP client of the metrics. After it, a valid client must get the page.

use std::os::unix::net::UnixStream;

use super::peers::converse;
use crate::cli::Args;
use crate::server::Server;

thread_local! {
    static SCENE: Scene = Scene::new();
}

/// A daemon without exports that serves its metrics.
struct Scene(Server);

impl Scene {
    fn new() -> Self {
        let args = Args {
            metrics: Some(([127, 0, 0, 1], 0).into()),
            backend: aio_context::BackendKind::Epoll,
            poll_wake_ns: Some(10_000),
            ..Args::for_exports(Vec::new())
        };
        Self(Server::new(&args).expect("a daemon"))
    }

    fn answer(&self, request: &[u8], piece: usize) -> Vec<u8> {
        let (client, server) = UnixStream::pair().expect("a socket");
        server.set_nonblocking(true).expect("a socket");
        self.0.join_metrics(server.into());
        converse(self.0.context(), client, request, piece)
    }
}

/// Returns `true` if the body has the length that the head gives.
fn is_complete_page(page: &[u8]) -> bool {
    let text = String::from_utf8_lossy(page);
    let Some((head, body)) = text.split_once("\r\n\r\n") else {
        return false;
    };
    let mut lines = head.lines();
    let length = lines.find_map(|line| line.strip_prefix("Content-Length: ")?.parse().ok());
    length == Some(body.len()) && body.contains("aio_")
}

/// Sends the bytes of a client, and checks the answer. The first byte encodes the length of the pieces that
/// are sent.
///
/// # Panics
/// If the answer is not a valid HTTP answer, or the next client does not get the page.
pub fn metrics(data: &[u8]) {
    let Some((how, request)) = data.split_first() else {
        return;
    };
    SCENE.with(|scene| {
        let answer = scene.answer(request, 1 << (how % 16));
        let is_complete = request.windows(4).any(|end| end == b"\r\n\r\n");
        assert!(
            answer.is_empty() || answer.starts_with(b"HTTP/1.1 "),
            "{answer:?}"
        );
        assert!(
            !is_complete || !answer.is_empty(),
            "a complete request has no answer"
        );
        let page = scene.answer(b"GET /metrics HTTP/1.1\r\n\r\n", usize::MAX);
        assert!(
            page.starts_with(b"HTTP/1.1 200 OK\r\n"),
            "an honest client is not served"
        );
        assert!(is_complete_page(&page), "the page is not complete");
    });
}
