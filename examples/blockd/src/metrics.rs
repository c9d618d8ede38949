//! `--metrics`: a page for Prometheus over HTTP, on the daemon's first loop.

mod http;
mod page;

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::rc::Rc;

use aio_context::Context;
use aio_metrics::ContextCollector;
use aio_sources::Listener;
use anyhow::Context as _;

use crate::background::Background;
use crate::peers::Peers;
use http::{Http, OnSnapshot};

/// The server of the page. Dropping it ends all connections.
#[derive(Debug)]
pub(crate) struct Metrics {
    address: SocketAddr,
    peers: Rc<Peers>,
    _listener: Listener,
}

impl Metrics {
    /// Serves `GET /metrics` at an address. The page has the figures that `figures` passes on, and those of
    /// the contexts.
    ///
    /// # Errors
    /// If the address cannot be bound, or the loop cannot wait for clients; with the remedy.
    pub(crate) fn listen(
        cx: &Context,
        address: SocketAddr,
        background: Background,
        contexts: ContextCollector,
        figures: impl Fn(&Context, OnSnapshot) + 'static,
    ) -> anyhow::Result<Self> {
        let what = || format!("cannot serve metrics at {address}; name another address or port");
        let socket = TcpListener::bind(address).with_context(what)?;
        let address = socket.local_addr().with_context(what)?;
        let peers = Peers::new(Http::new(background, contexts, figures));
        let joined = Rc::downgrade(&peers);
        let listener = Listener::new(cx, socket, move |cx, client, _| {
            if let Some(peers) = joined.upgrade()
                && let Err(error) = peers.join(cx, client.into())
            {
                tracing::warn!(%error, "a client of the metrics cannot be served");
            }
        });
        let listener = listener.map_err(io::Error::from).with_context(what)?;
        tracing::info!("metrics at http://{address}/metrics");
        Ok(Self {
            address,
            peers,
            _listener: listener,
        })
    }

    /// Serves a client that is already connected.
    #[cfg(any(test, feature = "fuzz"))]
    pub(crate) fn join(&self, cx: &Context, client: std::os::fd::OwnedFd) {
        self.peers.join(cx, client).expect("the loop waits for a client");
    }

    /// Returns the address at which the page is served.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Metrics {
    fn drop(&mut self) {
        self.peers.close();
    }
}

/// Parses the address of the page: a port on the loopback interface, or an address with a port.
pub(crate) fn parse_address(text: &str) -> Result<SocketAddr, String> {
    if let Ok(port) = text.parse::<u16>() {
        return Ok((Ipv4Addr::LOCALHOST, port).into());
    }
    text.parse().map_err(|_| {
        format!("'{text}' is not an address; give a port such as 9187, or an address such as 127.0.0.1:9187 or [::1]:9187")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_alone_is_on_the_loopback_interface() {
        for (text, address) in [
            ("9187", "127.0.0.1:9187"),
            ("0", "127.0.0.1:0"),
            ("0.0.0.0:80", "0.0.0.0:80"),
            ("[::1]:9187", "[::1]:9187"),
        ] {
            assert_eq!(parse_address(text).unwrap(), address.parse().unwrap());
        }
        for wrong in ["", ":9187", "70000", "localhost:9187", "127.0.0.1", "::1"] {
            assert!(
                parse_address(wrong).unwrap_err().contains("such as 9187"),
                "{wrong}"
            );
        }
    }
}
