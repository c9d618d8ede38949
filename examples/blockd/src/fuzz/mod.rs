//! Entry points for fuzzing: arbitrary guest memory, conversations, options and images, each with its invariants.
//!
//! Only tests and the feature `fuzz` build this module. The targets are in `fuzz/`; the tests below replay
//! their seeds.

mod control;
mod export;
mod image;
mod metrics;
mod nbd;
mod peers;
mod vhost_user;
mod virtqueue;

pub use control::control;
pub use export::export;
pub use image::image;
pub use metrics::metrics;
pub use nbd::nbd;
pub use vhost_user::vhost_user;
pub use virtqueue::virtqueue;

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    /// Runs every seed of a target, and also truncated seeds, and seeds with single bytes changed.
    fn replay(target: &str, run: fn(&[u8])) {
        let seeds = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("../../fuzz/seeds")
            .join(target);
        let mut count = 0;
        for entry in std::fs::read_dir(&seeds).unwrap() {
            let path = entry.unwrap().path();
            println!("{}", path.display());
            let seed = std::fs::read(&path).unwrap();
            run(&seed);
            run(&seed[..seed.len() / 2]);
            let mut random = fastrand::Rng::with_seed(1);
            for _ in 0..100 {
                let mut changed = seed.clone();
                for _ in 0..random.usize(1..4) {
                    let at = random.usize(..changed.len());
                    changed[at] = [0, 1, 0x80, 0xff, random.u8(..)][random.usize(..5)];
                }
                run(&changed);
            }
            count += 1;
        }
        assert!(count >= 5, "{count} seeds in {}", seeds.display());
    }

    #[test]
    fn seeds_of_virtqueue() {
        replay("virtqueue", virtqueue);
    }

    #[test]
    fn seeds_of_vhost_user() {
        replay("vhost_user", vhost_user);
    }

    #[test]
    fn seeds_of_nbd() {
        replay("nbd", nbd);
    }

    #[test]
    fn seeds_of_control() {
        replay("control", control);
    }

    #[test]
    fn seeds_of_metrics() {
        replay("metrics", metrics);
    }

    #[test]
    fn seeds_of_export() {
        replay("export", export);
    }

    #[test]
    fn seeds_of_image() {
        replay("image", image);
    }

    #[test]
    fn random_bytes() {
        let mut random = fastrand::Rng::with_seed(2);
        for _ in 0..500 {
            let len = random.usize(..2000);
            let noise: Vec<u8> = (0..len).map(|_| random.u8(..)).collect();
            virtqueue(&noise);
            vhost_user(&noise[..len / 4]);
            nbd(&noise);
            export(&noise[..len / 4]);
            image(&noise);
            control(&noise);
            metrics(&noise);
        }
    }
}
