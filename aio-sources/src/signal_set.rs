//! [`SignalSet`] and [`SignalFd`]: signals in the representations of the system.
//!
//! nix has no real-time signals; uapi makes a set with one, if the feature `realtime-signals` is on.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use nix::sys::signal::{SigSet, Signal as Known};
use nix::sys::signalfd::{self, SfdFlags, siginfo};

use crate::Signal;

/// Signals that a thread can block and a signalfd can receive.
pub(crate) enum SignalSet {
    Standard(SigSet),
    #[cfg(feature = "realtime-signals")]
    Realtime(uapi::c::sigset_t),
}

impl SignalSet {
    /// # Errors
    /// `InvalidInput` for a number that cannot be received.
    pub(crate) fn of(signals: &[Signal]) -> io::Result<Self> {
        if signals.iter().any(|signal| signal.is_realtime()) {
            return realtime(signals);
        }
        let known = signals.iter().map(|signal| {
            let known = Known::try_from(signal.as_raw());
            known.ok().filter(|_| signal.can_be_blocked()).ok_or(*signal)
        });
        let set = known.collect::<Result<SigSet, _>>();
        Ok(Self::Standard(set.map_err(cannot_be_received)?))
    }

    /// Blocks them in this thread.
    pub(crate) fn block(&self) -> io::Result<()> {
        match self {
            Self::Standard(set) => Ok(set.thread_block()?),
            #[cfg(feature = "realtime-signals")]
            Self::Realtime(set) => Ok(uapi::pthread_sigmask(uapi::c::SIG_BLOCK, Some(set), None)?),
        }
    }

    /// Opens a signalfd that receives them.
    pub(crate) fn open(&self) -> io::Result<SignalFd> {
        let flags = SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC;
        match self {
            Self::Standard(set) => Ok(SignalFd::Standard(signalfd::SignalFd::with_flags(set, flags)?)),
            #[cfg(feature = "realtime-signals")]
            Self::Realtime(set) => Ok(SignalFd::Realtime(uapi::signalfd_new(set, flags.bits())?)),
        }
    }
}

#[cfg(feature = "realtime-signals")]
fn realtime(signals: &[Signal]) -> io::Result<SignalSet> {
    let mut set = uapi::empty_sig_set()?;
    for signal in signals {
        if !signal.can_be_blocked() || uapi::sigaddset(&mut set, signal.as_raw()).is_err() {
            return Err(cannot_be_received(*signal));
        }
    }
    Ok(SignalSet::Realtime(set))
}

#[cfg(not(feature = "realtime-signals"))]
fn realtime(_signals: &[Signal]) -> io::Result<SignalSet> {
    Err(io::Error::new(
        io::ErrorKind::InvalidInput,
        "real-time signals need the feature `realtime-signals` of aio-sources",
    ))
}

fn cannot_be_received(signal: Signal) -> io::Error {
    let why = format!("{signal:?} cannot be received by a signalfd");
    io::Error::new(io::ErrorKind::InvalidInput, why)
}

/// A signalfd.
pub(crate) enum SignalFd {
    Standard(signalfd::SignalFd),
    #[cfg(feature = "realtime-signals")]
    Realtime(uapi::OwnedFd),
}

impl SignalFd {
    /// Reads a signal; `None` if there is none.
    pub(crate) fn read(&self) -> io::Result<Option<siginfo>> {
        match self {
            Self::Standard(fd) => Ok(fd.read_signal()?),
            #[cfg(feature = "realtime-signals")]
            Self::Realtime(fd) => match uapi::signalfd_read(fd.raw(), &mut [uapi::pod_zeroed()]) {
                Ok(read) => Ok(read.first().copied()),
                Err(why) if why.0 == uapi::c::EAGAIN => Ok(None),
                Err(why) => Err(why.into()),
            },
        }
    }
}

impl AsFd for SignalFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Standard(fd) => fd.as_fd(),
            #[cfg(feature = "realtime-signals")]
            Self::Realtime(fd) => fd.as_fd(),
        }
    }
}
