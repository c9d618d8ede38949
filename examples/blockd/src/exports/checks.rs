//! Checks of an export before it is opened.

use anyhow::bail;

use crate::export::{Export, IoThreads};

/// Fails if an export names a loop whose index is too high.
pub(crate) fn check_threads(export: &Export, count: usize) -> anyhow::Result<()> {
    let IoThreads::These(threads) = &export.iothreads else {
        return Ok(());
    };
    if let Some(thread) = threads.iter().find(|thread| **thread >= count) {
        let highest = threads.iter().max().unwrap_or(thread);
        bail!(
            "the export {} has iothread={thread}, and the daemon has {}; start it with --iothreads {}, or name a lower number",
            export.log_name(),
            match count {
                1 => "only the I/O thread 0".to_owned(),
                count => format!("the I/O threads 0 to {}", count - 1),
            },
            highest + 1
        );
    }
    Ok(())
}

/// Fails if no client can reach an export, or if another export has the same name or socket.
pub(crate) fn check_unique<'a>(
    others: impl IntoIterator<Item = &'a Export>,
    export: &Export,
    has_nbd: bool,
) -> anyhow::Result<()> {
    let (name, nbd_name) = (export.log_name(), export.nbd_name());
    if export.socket.is_none() && !has_nbd {
        bail!(
            "the export {name} has no socket; add socket=PATH, or serve it over NBD with --nbd /tmp/nbd.sock, for example"
        );
    }
    for other in others {
        if let Some(socket) = &export.socket
            && other.socket.as_ref() == Some(socket)
        {
            bail!(
                "two exports name the socket {}; each needs a socket of its own",
                socket.display()
            );
        }
        if has_nbd && other.nbd_name() == nbd_name {
            bail!("two exports have the name {nbd_name} for NBD clients; add name=TEXT to one of them");
        }
        if other.log_name() == name {
            bail!("two exports have the name {name}; each needs a name of its own");
        }
    }
    Ok(())
}
