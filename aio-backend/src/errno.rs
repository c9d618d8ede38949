//! Linux's numbers of the errors that a loop tells apart.
//!
//! This crate needs no other constants of the system, so it does without a crate for system calls. The tests
//! compare the numbers with those of `rustix`.

use std::io;

pub(crate) const PERM: i32 = 1;
pub(crate) const BADF: i32 = 9;
pub(crate) const NOMEM: i32 = 12;
pub(crate) const NODEV: i32 = 19;
pub(crate) const INVAL: i32 = 22;
pub(crate) const NFILE: i32 = 23;
pub(crate) const MFILE: i32 = 24;
pub(crate) const NOSPC: i32 = 28;

#[cfg(not(any(
    target_arch = "mips",
    target_arch = "mips32r6",
    target_arch = "mips64",
    target_arch = "mips64r6",
    target_arch = "sparc",
    target_arch = "sparc64"
)))]
mod by_architecture {
    pub(crate) const NOSYS: i32 = 38;
    pub(crate) const LOOP: i32 = 40;
}
#[cfg(any(
    target_arch = "mips",
    target_arch = "mips32r6",
    target_arch = "mips64",
    target_arch = "mips64r6"
))]
mod by_architecture {
    pub(crate) const NOSYS: i32 = 89;
    pub(crate) const LOOP: i32 = 90;
}
#[cfg(any(target_arch = "sparc", target_arch = "sparc64"))]
mod by_architecture {
    pub(crate) const NOSYS: i32 = 90;
    pub(crate) const LOOP: i32 = 62;
}
pub(crate) use by_architecture::{LOOP, NOSYS};

/// Returns whether an error has one of these numbers.
pub(crate) fn is_one_of(error: &io::Error, numbers: &[i32]) -> bool {
    error
        .raw_os_error()
        .is_some_and(|number| numbers.contains(&number))
}

#[cfg(test)]
mod tests {
    use rustix::io::Errno;

    #[test]
    fn b4_the_numbers_are_those_of_the_system() {
        for (number, errno) in [
            (super::PERM, Errno::PERM),
            (super::BADF, Errno::BADF),
            (super::NOMEM, Errno::NOMEM),
            (super::NODEV, Errno::NODEV),
            (super::INVAL, Errno::INVAL),
            (super::NFILE, Errno::NFILE),
            (super::MFILE, Errno::MFILE),
            (super::NOSPC, Errno::NOSPC),
            (super::NOSYS, Errno::NOSYS),
            (super::LOOP, Errno::LOOP),
        ] {
            assert_eq!(number, errno.raw_os_error(), "{errno:?}");
        }
    }
}
