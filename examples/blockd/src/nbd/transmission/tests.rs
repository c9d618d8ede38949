//! Requests, byte by byte: valid ones and hostile ones.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::atomic::AtomicBool;

use super::super::catalog::tests::export;
use super::super::negotiation::CONTEXT_ID;
use super::super::wire::{
    Errno, Fields, REQUEST_MAGIC, SIMPLE_REPLY_MAGIC, STRUCTURED_REPLY_MAGIC, chunk, command, command_flag,
};
use super::*;
use crate::disk::Source;

const SIZE: u64 = 4 << 20;

/// A connection after its handshake.
struct Session {
    transmission: Transmission,
    input: Input,
    out: Outbox,
    /// Requests that are passed to threads.
    jobs: RefCell<Vec<Job>>,
    replies: Vec<u8>,
    turns: usize,
}

impl Session {
    fn new(source: &Source, structured: bool) -> Self {
        let export = Rc::new(export("a", source, false));
        Self {
            transmission: Transmission::new(Agreement {
                export,
                structured,
                status: structured,
            }),
            input: Input::new(),
            out: Outbox::default(),
            jobs: RefCell::default(),
            replies: Vec::new(),
            turns: 0,
        }
    }

    fn ram(structured: bool) -> Self {
        Self::new(&Source::Ram(SIZE), structured)
    }

    /// Processes the received bytes until more must arrive.
    fn process(&mut self) -> Result<Stop, Failure> {
        let mut turn = Turn::new();
        loop {
            let submit = |_: &NbdExport, job, _| {
                self.jobs.borrow_mut().push(job);
                Ok(())
            };
            let processed = self
                .transmission
                .process(&mut self.input, &mut self.out, &mut turn, &submit);
            self.replies.extend(self.out.take_all());
            match processed? {
                Stop::Output => {}
                Stop::Turn => {
                    self.turns += 1;
                    turn = Turn::new();
                }
                stop => return Ok(stop),
            }
        }
    }

    /// Sends bytes in pieces of this length.
    fn send_in(&mut self, mut bytes: &[u8], piece: usize) -> Result<Stop, Failure> {
        let mut stop = Stop::Input;
        while !bytes.is_empty() {
            let count = self.input.put(&bytes[..piece.min(bytes.len())]);
            assert!(count > 0, "the input is full and nothing is processed");
            bytes = &bytes[count..];
            stop = self.process()?;
        }
        Ok(stop)
    }

    fn send(&mut self, bytes: &[u8]) -> Stop {
        self.send_in(bytes, usize::MAX).unwrap()
    }

    /// Returns the replies so far.
    fn take(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.replies)
    }
}

fn request(command: u16, flags: u16, cookie: u64, at: u64, len: u32) -> Vec<u8> {
    [
        &REQUEST_MAGIC.to_be_bytes()[..],
        &flags.to_be_bytes(),
        &command.to_be_bytes(),
        &cookie.to_be_bytes(),
        &at.to_be_bytes(),
        &len.to_be_bytes(),
    ]
    .concat()
}

fn write(cookie: u64, at: u64, data: &[u8]) -> Vec<u8> {
    [
        &request(command::WRITE, 0, cookie, at, data.len() as u32)[..],
        data,
    ]
    .concat()
}

fn simple(error: u32, cookie: u64) -> Vec<u8> {
    [
        &SIMPLE_REPLY_MAGIC.to_be_bytes()[..],
        &error.to_be_bytes(),
        &cookie.to_be_bytes(),
    ]
    .concat()
}

fn pattern(seed: u64, len: usize) -> Vec<u8> {
    let mut random = fastrand::Rng::with_seed(seed);
    (0..len).map(|_| random.u8(..)).collect()
}

/// Returns the flags, type and payload of the first chunk.
fn next_chunk<'a>(fields: &mut Fields<'a>, cookie: u64) -> (u16, u16, &'a [u8]) {
    assert_eq!(fields.u32(), Some(STRUCTURED_REPLY_MAGIC));
    let (flags, kind) = (fields.u16().unwrap(), fields.u16().unwrap());
    assert_eq!(fields.u64(), Some(cookie));
    let len = fields.u32().unwrap();
    (flags, kind, fields.bytes(len as usize).unwrap())
}

/// Returns the error number of the only chunk.
fn error_of(replies: &[u8], cookie: u64) -> u32 {
    let mut fields = Fields(replies);
    let (flags, kind, payload) = next_chunk(&mut fields, cookie);
    assert_eq!((flags, kind), (chunk::FLAG_DONE, chunk::ERROR));
    assert!(fields.is_empty());
    let mut payload = Fields(payload);
    let error = payload.u32().unwrap();
    let len = payload.u16().unwrap();
    let text = payload.bytes(len.into()).unwrap();
    assert!(payload.is_empty() && std::str::from_utf8(text).is_ok_and(|text| !text.is_empty()));
    error
}

#[test]
fn written_data_is_read_whatever_the_pieces() {
    for len in [1, 512, 4096, 65_536, 65_537, 300_000, 3 << 20] {
        for piece in [1, 27, 28, 29, 4096, 100_000, usize::MAX] {
            if len / piece.min(len) > 100_000 {
                continue;
            }
            let mut session = Session::ram(false);
            let data = pattern(len as u64, len);
            assert_eq!(
                session.send_in(&write(1, 1000, &data), piece).unwrap(),
                Stop::Input
            );
            assert_eq!(session.take(), simple(0, 1), "{len} bytes in pieces of {piece}");
            session.send(&request(command::READ, 0, 2, 1000, len as u32));
            assert!(
                session.take() == [simple(0, 2), data].concat(),
                "{len} bytes in pieces of {piece}"
            );
        }
    }
}

#[test]
fn structured_reads_have_one_chunk_of_data() {
    let mut session = Session::ram(true);
    let data = pattern(1, 1 << 20);
    session.send(&write(1, 512, &data));
    assert_eq!(session.take(), simple(0, 1));
    for (len, flags) in [(4096u32, 0), (1 << 20, 0), (1 << 20, command_flag::DF)] {
        session.send(&request(command::READ, flags, 2, 512, len));
        let replies = session.take();
        let mut fields = Fields(&replies);
        let (flags, kind, payload) = next_chunk(&mut fields, 2);
        assert_eq!(kind, chunk::OFFSET_DATA);
        assert_eq!(payload[..8], 512u64.to_be_bytes());
        assert!(payload[8..] == data[..len as usize]);
        if flags == 0 {
            assert_eq!(
                next_chunk(&mut fields, 2),
                (chunk::FLAG_DONE, chunk::NONE, &[][..])
            );
        }
        assert!(fields.is_empty());
    }
}

#[test]
fn several_requests_are_answered_together() {
    let mut session = Session::ram(false);
    let all: Vec<u8> = (0..50)
        .flat_map(|cookie| write(cookie, cookie * 512, &pattern(cookie, 512)))
        .collect();
    session.send(&all);
    let replies: Vec<u8> = (0..50).flat_map(|cookie| simple(0, cookie)).collect();
    assert_eq!(session.take(), replies);
    assert_eq!(session.turns, 0);
}

#[test]
fn long_requests_take_several_turns() {
    let mut session = Session::ram(false);
    session.send(&request(command::READ, 0, 1, 0, SIZE as u32));
    assert_eq!(session.take().len(), 16 + SIZE as usize);
    assert!(session.turns >= 3, "{} turns", session.turns);
    let before = session.turns;
    session.send(&request(
        command::WRITE_ZEROES,
        command_flag::NO_HOLE,
        1,
        0,
        SIZE as u32,
    ));
    assert!(session.turns >= before + 3, "{} turns", session.turns);
}

#[test]
fn requests_that_fail_leave_the_next_ones_intact() {
    let mut session = Session::ram(true);
    let outside = write(1, SIZE - 512, &pattern(1, 300_000));
    let bad_flag = [&request(command::WRITE, 1 << 9, 2, 0, 512)[..], &pattern(2, 512)].concat();
    let too_long = request(command::READ, 0, 3, 0, u32::MAX);
    let unknown = request(99, 0, 4, 0, 512);
    let good = write(5, 0, &pattern(5, 512));
    session.send(&outside);
    assert_eq!(error_of(&session.take(), 1), Errno::NoSpc as u32);
    session.send(&bad_flag);
    assert_eq!(error_of(&session.take(), 2), Errno::Inval as u32);
    session.send(&too_long);
    assert_eq!(error_of(&session.take(), 3), Errno::Inval as u32);
    session.send(&unknown);
    assert_eq!(error_of(&session.take(), 4), Errno::Inval as u32);
    session.send(&[outside, bad_flag, too_long, unknown, good].concat());
    assert!(session.take().ends_with(&simple(0, 5)));
    session.send(&request(command::READ, 0, 6, SIZE - 512, 512));
    assert!(
        session.take().ends_with(&[0; 512]),
        "nothing was written by a request that failed"
    );
}

#[test]
fn simple_errors() {
    let mut session = Session::ram(false);
    session.send(&request(command::READ, 0, 1, SIZE, 512));
    assert_eq!(session.take(), simple(22, 1));
    session.send(&write(2, SIZE, &[0; 512]));
    assert_eq!(session.take(), simple(28, 2));
}

#[test]
fn requests_without_bytes_succeed() {
    for structured in [false, true] {
        let mut session = Session::ram(structured);
        for command in [
            command::WRITE,
            command::TRIM,
            command::WRITE_ZEROES,
            command::CACHE,
        ] {
            session.send(&request(command, 0, 1, 0, 0));
            assert_eq!(session.take(), simple(0, 1));
        }
        session.send(&request(command::READ, 0, 1, 0, 0));
        let replies = session.take();
        if structured {
            let done = (chunk::FLAG_DONE, chunk::NONE, &[][..]);
            assert_eq!(next_chunk(&mut Fields(&replies), 1), done);
        } else {
            assert_eq!(replies, simple(0, 1));
        }
    }
}

#[test]
fn zeroes_trims_and_flushes() {
    let mut session = Session::ram(false);
    for flags in [0, command_flag::NO_HOLE, command_flag::FUA] {
        session.send(&write(1, 0, &[1; 16384]));
        session.send(&request(command::WRITE_ZEROES, flags, 2, 4096, 8192));
        session.send(&request(command::FLUSH, 0, 3, 0, 0));
        assert_eq!(
            session.take(),
            [simple(0, 1), simple(0, 2), simple(0, 3)].concat()
        );
        session.send(&request(command::READ, 0, 4, 0, 16384));
        let expected = [&simple(0, 4)[..], &[1; 4096], &[0; 8192], &[1; 4096]].concat();
        assert!(session.take() == expected);
    }
    session.send(&request(command::TRIM, command_flag::FUA, 5, 0, SIZE as u32));
    session.send(&request(command::CACHE, 0, 6, 0, 4096));
    assert_eq!(session.take(), [simple(0, 5), simple(0, 6)].concat());
}

#[test]
fn extents_of_a_sparse_image() {
    let image = tempfile::NamedTempFile::new().unwrap();
    image.as_file().set_len(SIZE).unwrap();
    let source = Source::File(image.path().to_owned());
    let mut session = Session::new(&source, true);
    session.send(&write(1, 1 << 20, &[7; 65536]));
    session.take();
    let mut status = |flags, at, len| {
        session.send(&request(command::BLOCK_STATUS, flags, 2, at, len));
        let replies = session.take();
        let mut fields = Fields(&replies);
        let (flags, kind, payload) = next_chunk(&mut fields, 2);
        assert_eq!((flags, kind), (chunk::FLAG_DONE, chunk::BLOCK_STATUS));
        assert!(fields.is_empty());
        let mut payload = Fields(payload);
        assert_eq!(payload.u32(), Some(CONTEXT_ID));
        let mut extents = Vec::new();
        while let Some(len) = payload.u32() {
            extents.push((len, payload.u32().unwrap()));
        }
        extents
    };
    let all = status(0, 0, SIZE as u32);
    if all == [(SIZE as u32, 0)] {
        println!("skipped: the file system of the temporary directory has no holes");
        return;
    }
    assert_eq!(all, [(1 << 20, 3), (65536, 0), ((3 << 20) - 65536, 3)]);
    assert_eq!(status(command_flag::REQ_ONE, 0, SIZE as u32), [(1 << 20, 3)]);
    assert_eq!(status(0, 1 << 20, 4096), [(4096, 0)]);
    assert_eq!(status(0, 512, 512), [(512, 3)]);
    // The part that a truncated file has lost is not a hole: reading it is an error.
    image.as_file().set_len(2 << 20).unwrap();
    assert_eq!(
        status(0, (1 << 20) + 65536, 2 << 20),
        [((1 << 20) - 65536, 3), ((1 << 20) + 65536, 0)]
    );
}

#[test]
fn a_read_that_fails_in_the_middle() {
    let image = tempfile::NamedTempFile::new().unwrap();
    image.as_file().set_len(SIZE).unwrap();
    let source = Source::File(image.path().to_owned());
    let truncated = |structured| {
        let session = Session::new(&source, structured);
        image.as_file().set_len(1 << 20).unwrap();
        session
    };
    let read = request(command::READ, 0, 1, 0, 2 << 20);
    let mut session = truncated(true);
    session.send(&read);
    let replies = session.take();
    let mut fields = Fields(&replies);
    let (flags, kind, payload) = next_chunk(&mut fields, 1);
    assert_eq!(
        (flags, kind, payload.len()),
        (0, chunk::OFFSET_DATA, 8 + (2 << 20))
    );
    assert_eq!(error_of(fields.0, 1), Errno::Io as u32);
    drop(session);
    // A simple reply that has begun cannot fail: the connection ends.
    image.as_file().set_len(SIZE).unwrap();
    let mut session = truncated(false);
    assert!(matches!(
        session.send_in(&read, usize::MAX),
        Err(Failure::Read(_))
    ));
}

#[test]
fn a_client_that_disconnects_in_the_middle_of_a_write() {
    let mut session = Session::ram(false);
    let whole = write(1, 0, &[1; 200_000]);
    assert_eq!(session.send(&whole[..150_000]), Stop::Input);
    session.transmission.end();
    session.input.clear();
    assert_eq!(session.process().unwrap(), Stop::Disconnect);
    assert_eq!(session.transmission.in_flight(), 0);
    assert_eq!(session.take(), [0; 0]);
    let mut session = Session::ram(false);
    assert_eq!(
        session.send(&request(command::DISC, 0, 1, 0, 0)),
        Stop::Disconnect
    );
    assert_eq!(session.take(), [0; 0]);
    assert_eq!(
        session.send(&request(command::READ, 0, 1, 0, 512)),
        Stop::Disconnect
    );
}

#[test]
fn wrong_magic_ends_the_connection() {
    let mut session = Session::ram(false);
    let mut wrong = request(command::READ, 0, 1, 0, 512);
    wrong[0] = 0;
    assert!(matches!(session.send_in(&wrong, 4), Err(Failure::Magic(_))));
}

/// With threads, data are collected, replies arrive in any order, and the number and the bytes of requests
/// have a limit.
#[test]
fn threads_execute_a_limited_number_of_requests() {
    let mut session = threaded();
    let writes: Vec<u8> = (0..100)
        .flat_map(|cookie| write(cookie, cookie * 512, &pattern(cookie, 512)))
        .collect();
    assert_eq!(session.send(&writes), Stop::Jobs);
    assert_eq!(session.jobs.borrow().len(), MOST_JOBS);
    let mut expected = Vec::new();
    while session.transmission.in_flight() > 0 {
        let job = session.jobs.borrow_mut().pop().unwrap();
        expected.extend(simple(0, job.request.cookie));
        session.end(job);
        session.process().unwrap();
    }
    assert_eq!(expected.len(), 1600);
    assert_eq!(session.take(), expected);
    for len in [100u32, 100_000] {
        session.send(&request(command::READ, 0, 7, 512, len));
        let job = session.jobs.borrow_mut().pop().unwrap();
        session.end(job);
        session.process().unwrap();
        assert_eq!(
            session.take()[..116],
            [&simple(0, 7)[..], &pattern(1, 100)].concat()
        );
    }
}

#[test]
fn bytes_of_threads_are_limited() {
    let mut session = threaded();
    let len = MOST_JOB_BYTES as u32 / 2;
    let reads: Vec<u8> = (0..4)
        .flat_map(|cookie| request(command::READ, 0, cookie, 0, len))
        .collect();
    assert_eq!(session.send(&reads), Stop::Jobs);
    assert_eq!(session.jobs.borrow().len(), 2);
    // Unsent replies count as well.
    let job = session.jobs.borrow_mut().remove(0);
    let (request, device) = (
        job.request,
        session.transmission.agreement().export.device.clone(),
    );
    let result = job.execute(&device.disk, &AtomicBool::new(false));
    session.transmission.end_job(&request, result, &mut session.out);
    assert!(session.transmission.must_wait(&request, &session.out));
    session.process().unwrap();
    session.process().unwrap();
    assert_eq!(session.jobs.borrow().len(), 2);
}

/// Returns a session whose requests are executed by [`Session::end`].
fn threaded() -> Session {
    let cx = aio_context::Context::new().unwrap();
    let image = tempfile::NamedTempFile::new().unwrap();
    image.as_file().set_len(64 << 20).unwrap();
    let source = Source::File(image.path().to_owned());
    let mut threaded = export("a", &source, false);
    threaded.workers = crate::Engine::Threads.workers(&cx, &source);
    let mut session = Session::ram(false);
    session.transmission.agreement.export = Rc::new(threaded);
    session
}

impl Session {
    /// Executes a request like a thread.
    fn end(&mut self, job: Job) {
        let device = self.transmission.agreement().export.device.clone();
        let request = job.request;
        let result = job.execute(&device.disk, &AtomicBool::new(false));
        self.transmission.end_job(&request, result, &mut self.out);
    }
}
