//! Requests of every kind and layout, from a driver that writes its buffers by hand.

use super::*;
use crate::buffers::Buffer;
use crate::disk::Source;
use crate::memory::tests::simple;

const DISK: u64 = 1 << 20;
const OK: u8 = 0;
const IOERR: u8 = 1;
const UNSUPP: u8 = 2;

struct Driver {
    device: Device,
    memory: Memory,
}

/// The outcome of a request: its status, the contents of its buffer, and the number of bytes that the device reports.
#[derive(Debug, PartialEq)]
struct Outcome {
    status: u8,
    read: Vec<u8>,
    written: u32,
}

impl Driver {
    fn new(read_only: bool) -> Self {
        let disk = Disk::open(&Source::Ram(DISK), read_only).unwrap();
        Self {
            device: Device::new(disk, "serial"),
            memory: simple(0x100_0000),
        }
    }

    /// Sends header and data in pieces of the given lengths. The last piece has the rest. The buffers for the
    /// device are divided in the same way.
    fn send(
        &self,
        header: &[u8],
        data: &[u8],
        room: usize,
        splits: (&[usize], &[usize]),
    ) -> Result<Outcome, MalformedRequest> {
        let out = [header, data].concat();
        let readable = pieces(0x1000, out.len(), splits.0);
        let writable = pieces(0x80_1000, room + 1, splits.1);
        let poison = vec![0xa5; room + 1];
        Bytes::new(&self.memory, &readable).write(&out).unwrap();
        Bytes::new(&self.memory, &writable).write(&poison).unwrap();
        let chain = DescriptorChain { readable, writable };
        let done = serve(&self.device, &self.memory, &chain)?;
        let mut back = vec![0; room + 1];
        Bytes::new(&self.memory, &chain.writable).read(&mut back).unwrap();
        let status = back.pop().unwrap();
        assert_eq!(status == OK, done.error.is_none());
        Ok(Outcome {
            status,
            read: back,
            written: done.written,
        })
    }

    fn simple(&self, kind: u32, sector: u64, data: &[u8], room: usize) -> Outcome {
        self.send(&header(kind, sector), data, room, (&[16], &[room]))
            .unwrap()
    }
}

/// Serves a request step by step to its end.
fn serve(device: &Device, memory: &Memory, chain: &DescriptorChain) -> Result<Done, MalformedRequest> {
    let mut progress = Progress::default();
    loop {
        let step = device.serve(memory, chain, false, &mut progress)?;
        assert!(step.moved < 2 * STEP, "a step moves {} bytes", step.moved);
        if let Some(done) = step.done {
            return Ok(done);
        }
    }
}

fn header(kind: u32, sector: u64) -> Vec<u8> {
    [&kind.to_le_bytes()[..], &[0; 4], &sector.to_le_bytes()].concat()
}

fn range(sector: u64, sectors: u32, flags: u32) -> Vec<u8> {
    [
        &sector.to_le_bytes()[..],
        &sectors.to_le_bytes(),
        &flags.to_le_bytes(),
    ]
    .concat()
}

fn pieces(mut guest: u64, total: usize, lens: &[usize]) -> Vec<Buffer> {
    let mut buffers = Vec::new();
    let mut left = total;
    for len in lens.iter().copied().chain([usize::MAX]) {
        let len = len.min(left);
        buffers.push(Buffer {
            guest,
            len: len as u32,
        });
        guest += len as u64 + 7;
        left -= len;
        if left == 0 {
            break;
        }
    }
    buffers
}

#[test]
fn any_layout_will_do() {
    let driver = Driver::new(false);
    let text: Vec<u8> = (0..1024).map(|i| (i % 253) as u8).collect();
    let outs: [&[usize]; 5] = [&[16], &[1, 2, 3], &[1040], &[16, 511, 2], &[15, 2]];
    let ins: [&[usize]; 5] = [&[1024], &[1025], &[1023], &[1, 1], &[512, 512]];
    for (sector, (out, into)) in outs.iter().zip(ins).enumerate() {
        let sector = sector as u64 * 2;
        let wrote = driver.send(&header(1, sector), &text, 0, (out, &[])).unwrap();
        assert_eq!(
            wrote,
            Outcome {
                status: OK,
                read: vec![],
                written: 1
            }
        );
        let read = driver.send(&header(0, sector), &[], 1024, (&[3], into)).unwrap();
        assert_eq!(
            read,
            Outcome {
                status: OK,
                read: text.clone(),
                written: 1025
            }
        );
    }
}

#[test]
fn nothing_is_done_outside_the_disk() {
    let driver = Driver::new(false);
    let last = DISK / 512 - 1;
    let data = [7; 1024];
    assert_eq!(driver.simple(1, last - 1, &data, 0).status, OK);
    for sector in [last, last + 1, u64::MAX / 512, u64::MAX / 512 + 1, u64::MAX] {
        assert_eq!(
            driver.simple(1, sector, &data, 0).status,
            IOERR,
            "write at {sector}"
        );
        let read = driver.simple(0, sector, &[], 1024);
        assert_eq!(
            read,
            Outcome {
                status: IOERR,
                read: vec![0xa5; 1024],
                written: 1
            }
        );
        for kind in [11, 13] {
            let cleared = driver.simple(kind, 0, &range(sector, 2, 0), 0);
            assert_eq!(cleared.status, IOERR, "range at {sector}");
        }
    }
}

#[test]
fn odd_lengths_are_errors() {
    let driver = Driver::new(false);
    assert_eq!(driver.simple(0, 0, &[], 511).status, IOERR);
    assert_eq!(driver.simple(1, 0, &[0; 513], 0).status, IOERR);
    assert_eq!(driver.simple(0, 0, &[], 0).status, OK);
}

#[test]
fn identifies_itself() {
    let driver = Driver::new(false);
    let id = driver.simple(8, 0, &[], 20);
    assert_eq!((id.status, id.written), (OK, 21));
    assert_eq!(&id.read, b"serial\0\0\0\0\0\0\0\0\0\0\0\0\0\0");
    assert_eq!(driver.simple(8, 0, &[], 3).read, b"ser");
    assert_eq!(driver.simple(8, 0, &[], 30).written, 21);
}

#[test]
fn clears_ranges() {
    let driver = Driver::new(false);
    assert_eq!(driver.simple(1, 0, &[9; 4096], 0).status, OK);
    let two = [range(1, 1, 0), range(3, 2, 1)].concat();
    assert_eq!(driver.simple(13, 0, &two, 0).status, OK);
    let seen = driver.simple(0, 0, &[], 4096).read;
    let firsts: Vec<u8> = seen.chunks(512).map(|sector| sector[0]).collect();
    assert_eq!(firsts, [9, 0, 9, 0, 0, 9, 9, 9]);
    assert_eq!(driver.simple(11, 0, &range(0, 1, 0), 0).status, OK);
    assert_eq!(driver.simple(11, 0, &range(0, 0, 0), 0).status, OK);
}

#[test]
fn no_range_is_touched_if_one_is_wrong() {
    let driver = Driver::new(false);
    assert_eq!(driver.simple(1, 0, &[9; 512], 0).status, OK);
    for wrong in [range(DISK / 512, 1, 0), range(0, MOST_RANGE_SECTORS + 1, 0)] {
        let ranges = [range(0, 1, 0), wrong].concat();
        assert_eq!(driver.simple(13, 0, &ranges, 0).status, IOERR);
    }
    let flagged = [range(0, 1, 0), range(1, 1, 2)].concat();
    assert_eq!(driver.simple(13, 0, &flagged, 0).status, UNSUPP);
    assert_eq!(driver.simple(11, 0, &range(0, 1, 1), 0).status, UNSUPP);
    for len in [0, 1, 15, 17, 16 * (MOST_RANGES as usize + 1)] {
        assert_eq!(
            driver.simple(13, 0, &vec![0; len], 0).status,
            IOERR,
            "{len} bytes of ranges"
        );
    }
    assert_eq!(driver.simple(0, 0, &[], 512).read, [9; 512]);
}

#[test]
fn unknown_types_are_unsupported() {
    let driver = Driver::new(false);
    for kind in [2, 3, 5, 14, 0x8000_0000, u32::MAX] {
        assert_eq!(driver.simple(kind, 0, &[], 512).status, UNSUPP, "type {kind}");
    }
}

#[test]
fn read_only_refuses_changes() {
    let driver = Driver::new(true);
    assert_eq!(driver.simple(1, 0, &[0; 512], 0).status, IOERR);
    assert_eq!(driver.simple(11, 0, &range(0, 1, 0), 0).status, IOERR);
    assert_eq!(driver.simple(13, 0, &range(0, 1, 0), 0).status, IOERR);
    assert_eq!(driver.simple(4, 0, &[], 0).status, OK);
    assert_eq!(driver.simple(0, 0, &[], 512).status, OK);
}

#[test]
fn a_chain_without_header_or_status_is_malformed() {
    let driver = Driver::new(false);
    let buffer = |guest, len| vec![Buffer { guest, len }];
    let serve = |readable, writable| {
        serve(
            &driver.device,
            &driver.memory,
            &DescriptorChain { readable, writable },
        )
        .map(|done| done.written)
    };
    assert!(matches!(
        serve(vec![], buffer(0x1000, 1)),
        Err(MalformedRequest::TooShort { .. })
    ));
    assert!(matches!(
        serve(buffer(0x1000, 15), buffer(0x1000, 1)),
        Err(MalformedRequest::TooShort { .. })
    ));
    assert!(matches!(
        serve(buffer(0x1000, 16), vec![]),
        Err(MalformedRequest::TooShort { .. })
    ));
    assert!(matches!(
        serve(buffer(0x1000, 16), buffer(0x1000, 0)),
        Err(MalformedRequest::TooShort { .. })
    ));
    assert!(matches!(
        serve(buffer(0, 16), buffer(0x1000, 1)),
        Err(MalformedRequest::Unmapped(_))
    ));
    assert!(matches!(
        serve(buffer(0x1000, 16), buffer(0, 1)),
        Err(MalformedRequest::Unmapped(_))
    ));
}

#[test]
fn an_unmapped_buffer_is_an_error() {
    let driver = Driver::new(false);
    let mut chain = DescriptorChain {
        readable: vec![],
        writable: vec![],
    };
    chain.readable.push(Buffer {
        guest: 0x1000,
        len: 16,
    });
    chain.writable.push(Buffer { guest: 0, len: 512 });
    chain.writable.push(Buffer {
        guest: 0x2000,
        len: 1,
    });
    Bytes::new(&driver.memory, &chain.readable)
        .write(&header(0, 0))
        .unwrap();
    let done = serve(&driver.device, &driver.memory, &chain).unwrap();
    assert_eq!(done.written, 1);
    assert!(matches!(
        done.error,
        Some(RequestError::Disk(DiskError::Unmapped(_)))
    ));
}

/// Between two steps of a long request the driver changes everything that it can. Each step uses and checks
/// the present state.
#[test]
fn c13_a_request_may_change_between_its_steps() {
    const LONG: u32 = 3 * STEP as u32;
    let disk = Disk::open(&Source::Ram(2 * u64::from(LONG)), false).unwrap();
    let device = Device::new(disk, "serial");
    let memory = simple(0x100_0000);
    let chain = |len: u32| DescriptorChain {
        readable: vec![Buffer {
            guest: 0x1000,
            len: 16,
        }],
        writable: vec![
            Buffer { guest: 0x2000, len },
            Buffer {
                guest: 0x80_0000,
                len: 1,
            },
        ],
    };
    let put = |kind, sector| {
        Bytes::new(&memory, &chain(0).readable)
            .write(&header(kind, sector))
            .unwrap();
    };
    // The changes by the driver. The last field is `true` if the request still succeeds.
    let changes: [(&str, u32, u64, u32, bool); 5] = [
        ("nothing", 0, 0, LONG, true),
        ("less than has been read", 0, 0, 512, false),
        ("beyond the disk", 0, 2 * u64::from(LONG) / 512 - 1, LONG, false),
        ("longer", 0, 0, LONG + 512, true),
        ("another type", 8, 0, LONG, true),
    ];
    for (what, kind, sector, len, good) in changes {
        put(0, 0);
        let mut progress = Progress::default();
        let step = device.serve(&memory, &chain(LONG), false, &mut progress).unwrap();
        assert!(step.done.is_none() && step.moved == STEP, "{what}");
        put(kind, sector);
        let done = loop {
            let step = device.serve(&memory, &chain(len), false, &mut progress).unwrap();
            if let Some(done) = step.done {
                break done;
            }
        };
        assert_eq!(done.error.is_none(), good, "{what}: {:?}", done.error);
    }
}

/// The same test with the list of ranges.
#[test]
fn c13_ranges_may_change_between_steps() {
    const SIZE: u64 = 1 << 30;
    let disk = Disk::open(&Source::Ram(SIZE), false).unwrap();
    let device = Device::new(disk, "serial");
    let memory = simple(0x10000);
    let chain = DescriptorChain {
        readable: vec![Buffer {
            guest: 0x1000,
            len: 32,
        }],
        writable: vec![Buffer {
            guest: 0x2000,
            len: 1,
        }],
    };
    let put = |sector, sectors| {
        let request = [header(11, 0), range(sector, sectors, 0)].concat();
        Bytes::new(&memory, &chain.readable).write(&request).unwrap();
    };
    let all = (SIZE / 512) as u32;
    for (sector, sectors, good) in [(0, all, true), (0, 8, true), (1, all, false), (0, 0, true)] {
        put(0, all);
        let mut progress = Progress::default();
        let step = device.serve(&memory, &chain, false, &mut progress).unwrap();
        assert!(step.done.is_none() && step.moved < 2 * STEP);
        put(sector, sectors);
        let mut steps = 1;
        let done = loop {
            steps += 1;
            let step = device.serve(&memory, &chain, false, &mut progress).unwrap();
            if let Some(done) = step.done {
                break done;
            }
        };
        assert_eq!(
            done.error.is_none(),
            good,
            "{sector}, {sectors}: {:?}",
            done.error
        );
        assert!(steps <= SIZE / STEP, "{steps} steps");
    }
}

#[test]
fn c13_the_longest_transfer_is_that_of_the_longest_chain() {
    let driver = Driver::new(false);
    let chain = |len| DescriptorChain {
        readable: vec![Buffer {
            guest: 0x1000,
            len: 16,
        }],
        writable: vec![
            Buffer { guest: 0x2000, len },
            Buffer {
                guest: 0x3000,
                len: 512,
            },
            Buffer {
                guest: 0x3000,
                len: 1,
            },
        ],
    };
    Bytes::new(&driver.memory, &chain(0).readable)
        .write(&header(0, 0))
        .unwrap();
    let error_of = |len| serve(&driver.device, &driver.memory, &chain(len)).unwrap().error;
    let most = MOST_BYTES as u32 - 512;
    assert!(matches!(
        error_of(most),
        Some(RequestError::Disk(DiskError::Outside { .. }))
    ));
    assert!(matches!(error_of(most + 512), Some(RequestError::Length(_))));
}
