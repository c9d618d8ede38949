//! Reads and writes that the loop executes itself.

use super::super::input::Input;
use super::super::outbox::Outbox;
use super::super::request::{Kind, Request};
use super::super::turn::{Failure, Stop, Turn};
use super::{Current, READ_STEP, Transmission, WRITE_STEP};
use crate::disk::{Disk, DiskError};

impl Transmission {
    /// Executes a short read whose data need no wait. Returns `false` if the request is not such a read.
    pub(super) fn read_at_once(
        &self,
        disk: &Disk,
        request: &Request,
        out: &mut Outbox,
        turn: &mut Turn,
    ) -> bool {
        if request.kind != Kind::Read || request.len > READ_STEP {
            return false;
        }
        turn.spend(request.len.into());
        self.read(request, out, |at, into| disk.read_into_now(at, into))
            .is_ok()
    }

    /// Reads all bytes of a request into its reply. After an error there is no reply.
    #[inline]
    pub(super) fn read(
        &self,
        request: &Request,
        out: &mut Outbox,
        read: impl FnOnce(u64, &mut [u8]) -> Result<(), DiskError>,
    ) -> Result<(), DiskError> {
        let len = self.format.data_header_len() + request.len as usize;
        let (header, data) = out.space(len).split_at_mut(self.format.data_header_len());
        let result = read(request.at, data);
        match result {
            Ok(()) => {
                self.format.begin_data(header, request, true);
                self.stats().executed(request.figures(false), false);
            }
            Err(_) => out.take_back(len),
        }
        result
    }

    /// Writes the data that have arrived.
    #[inline]
    pub(super) fn write(
        &mut self,
        request: Request,
        done: u32,
        mut error: Option<DiskError>,
        input: &mut Input,
        out: &mut Outbox,
        turn: &mut Turn,
    ) -> Option<Stop> {
        let left = request.len - done;
        let arrived = input.data();
        if arrived.len() < left.min(WRITE_STEP) as usize {
            self.current = Some(Current::Write { request, done, error });
            return Some(Stop::Input);
        }
        let part = &arrived[..arrived.len().min(left as usize)];
        if error.is_none() {
            let disk = &self.agreement.export.device.disk;
            error = disk.write_from(request.at + u64::from(done), part).err();
        }
        let count = part.len();
        input.consume(count);
        turn.spend(count as u64);
        let done = done + count as u32;
        if done < request.len {
            self.current = Some(Current::Write { request, done, error });
            return None;
        }
        match error {
            Some(error) => self.fail(out, &request, error),
            None => self.written(out, &request),
        }
        None
    }

    /// Reads the next step of a long read.
    pub(super) fn read_on(
        &mut self,
        request: Request,
        done: u32,
        mut error: Option<DiskError>,
        out: &mut Outbox,
        turn: &mut Turn,
    ) -> Result<(), Failure> {
        let part = (request.len - done).min(READ_STEP);
        let data = out.space(part as usize);
        if error.is_none() {
            let disk = &self.agreement.export.device.disk;
            error = disk.read_into(request.at + u64::from(done), data).err();
        }
        if let Some(why) = error.take() {
            if !self.format.structured {
                out.take_back(part as usize);
                return Err(Failure::Read(why));
            }
            data.fill(0);
            error = Some(why);
        }
        turn.spend(part.into());
        let done = done + part;
        if done < request.len {
            self.current = Some(Current::Read { request, done, error });
            return Ok(());
        }
        match error {
            Some(error) => self.fail(out, &request, error),
            None => {
                self.stats().executed(request.figures(false), false);
                self.format.end_data(out, request.cookie);
            }
        }
        Ok(())
    }

    /// Replies to a request that has written or zeroed. If the request demands it, a flush precedes the
    /// reply.
    #[inline]
    pub(super) fn written(&self, out: &mut Outbox, request: &Request) {
        let flushed = if request.fua {
            self.agreement.export.device.disk.flush()
        } else {
            Ok(())
        };
        self.reply(out, request, flushed);
    }
}
