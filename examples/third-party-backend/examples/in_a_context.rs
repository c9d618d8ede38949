//! A context that waits with a backend from outside.

use std::io::{PipeReader, Read, Write};

use aio_context::{Context, Wait};
use third_party_backend::OneShot;

pub(crate) fn main() -> std::io::Result<()> {
    let cx = Context::builder().backend(Box::new(OneShot::new()?)).build()?;
    let (reader, mut writer) = std::io::pipe()?;
    let read = |mut pipe: &PipeReader, _: &Context| {
        let mut bytes = [0; 16];
        if let Ok(count) = pipe.read(&mut bytes) {
            println!("{}", String::from_utf8_lossy(&bytes[..count]));
        }
    };
    let _registration = cx.on(reader).readable(read).watch()?;
    println!("waiting with {}", cx.backend_name());
    writer.write_all(b"hello")?;
    cx.poll(Wait::Block)?;
    Ok(())
}
