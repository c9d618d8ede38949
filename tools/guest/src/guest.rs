//! [`Guest`]: a virtual machine that executes commands, controlled by QEMU's monitor.

use std::fs::File;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use aio_tools::interrupt::Interrupt;
use anyhow::{Context as _, bail, ensure};
use serde_json::{Value, json};

use crate::packages::Found;
use crate::port::Port;

/// The longest boot. It takes three seconds on an idle core, and a minute beside builds.
const BOOT: Duration = Duration::from_secs(300);
/// The longest wait for an answer of QEMU itself.
const MONITOR: Duration = Duration::from_secs(30);
const MEMORY: &str = "256M";
/// The first version of QEMU that takes the reconnect interval in milliseconds.
const RECONNECT_MS: (u32, u32) = (9, 2);

/// The indexes of a queue. They count modulo 65,536.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct QueueState {
    pub(crate) offered: u16,
    pub(crate) completed: u16,
}

/// A running guest. Dropping it kills QEMU.
pub(crate) struct Guest {
    qemu: Child,
    commands: Port,
    monitor: Port,
    reconnect: &'static str,
    console: PathBuf,
    number: u32,
    /// The release of the guest's kernel.
    pub(crate) release: String,
}

impl Guest {
    /// Boots a guest whose disk is served at `socket`.
    ///
    /// # Errors
    /// If QEMU does not start, or the guest does not boot. The error contains the end of its console.
    pub(crate) fn boot(
        found: &Found,
        initramfs: &Path,
        socket: &Path,
        queues: u16,
        interrupt: &Interrupt,
    ) -> anyhow::Result<Self> {
        let directory = socket.parent().unwrap_or(Path::new(""));
        let at = |name: &str| directory.join(name);
        let reconnect = if found.qemu.version()? >= RECONNECT_MS {
            "reconnect-ms=100"
        } else {
            "reconnect=1"
        };
        let console = at("console");
        let mut command = found.qemu.command();
        command
            .args(["-nodefaults", "-no-user-config", "-display", "none"])
            .args(["-machine", "pc,memory-backend=memory", "-accel", "tcg"])
            .args(["-m", MEMORY, "-smp", &queues.to_string()])
            .arg("-object")
            .arg(format!("memory-backend-memfd,id=memory,size={MEMORY},share=on"))
            .arg("-kernel")
            .arg(&found.kernel)
            .arg("-initrd")
            .arg(initramfs)
            .args([
                "-append",
                "console=ttyS0 loglevel=5 panic=1 mitigations=off nokaslr",
            ])
            .arg("-serial")
            .arg(format!("file:{}", console.display()))
            .arg("-serial")
            .arg(format!("unix:{},server=on,wait=off", at("commands").display()))
            .arg("-qmp")
            .arg(format!("unix:{},server=on,wait=off", at("monitor").display()))
            .arg("-chardev")
            .arg(format!("socket,id=disk,path={},{reconnect}", socket.display()))
            .arg("-device")
            .arg(format!(
                "vhost-user-blk-pci,chardev=disk,num-queues={queues},id=disk"
            ));
        let messages = File::create(at("qemu"))?;
        // Ctrl-C then signals only this program, which ends QEMU.
        let mut qemu = command
            .stdin(Stdio::null())
            .stdout(messages.try_clone()?)
            .stderr(messages)
            .process_group(0)
            .spawn()
            .with_context(|| format!("cannot start {:?}", command.get_program()))?;
        let connected = connect(&mut qemu, directory, interrupt);
        let (commands, monitor) = match connected {
            Ok(ports) => ports,
            Err(why) => {
                end(&mut qemu);
                return Err(why);
            }
        };
        let mut guest = Self {
            qemu,
            commands,
            monitor,
            reconnect,
            console,
            number: 0,
            release: String::new(),
        };
        guest.monitor.line(MONITOR)?;
        guest.control("qmp_capabilities", &json!({}))?;
        guest.wait_ready()?;
        Ok(guest)
    }

    /// Waits until the guest executes commands, after a boot.
    ///
    /// # Errors
    /// If the guest does not boot.
    pub(crate) fn wait_ready(&mut self) -> anyhow::Result<()> {
        let began = Instant::now();
        loop {
            let left = BOOT.saturating_sub(began.elapsed());
            let line = self.commands.line(left);
            let line = line
                .context("the guest does not come up")
                .map_err(|why| self.explain(why))?;
            if let Some((_, release)) = line.split_once("@ready ") {
                release.clone_into(&mut self.release);
                return Ok(());
            }
        }
    }

    /// Executes a command in the guest's shell, and returns its output.
    ///
    /// # Errors
    /// If the command fails, or does not end within the limit.
    pub(crate) fn run(&mut self, command: &str, limit: Duration) -> anyhow::Result<String> {
        let (status, said) = self
            .try_run(command, limit)
            .with_context(|| format!("`{command}` in the guest"))
            .map_err(|why| self.explain(why))?;
        if status != 0 {
            let failed = anyhow::anyhow!("`{command}` in the guest fails: {said}");
            return Err(self.explain(failed));
        }
        Ok(said)
    }

    fn try_run(&mut self, command: &str, limit: Duration) -> anyhow::Result<(i32, String)> {
        self.number += 1;
        let (begin, end) = (
            format!("@begin {}", self.number),
            format!("@end {} ", self.number),
        );
        self.commands.send(&format!("{} {command}", self.number))?;
        let began = Instant::now();
        let mut said = Vec::new();
        let mut has_begun = false;
        loop {
            let line = self.commands.line(limit.saturating_sub(began.elapsed()))?;
            if let Some(status) = line.strip_prefix(&end) {
                return Ok((status.parse().unwrap_or(-1), said.join("\n")));
            }
            if has_begun {
                said.push(line);
            } else {
                has_begun = line.ends_with(&begin);
            }
        }
    }

    /// Sends a command after which the guest does not answer.
    ///
    /// # Errors
    /// If QEMU has ended.
    pub(crate) fn send(&mut self, command: &str) -> anyhow::Result<()> {
        self.number += 1;
        self.commands.send(&format!("{} {command}", self.number))
    }

    /// Repeats a command until it prints `expected`.
    ///
    /// # Errors
    /// If it does not within the limit.
    pub(crate) fn wait_for(&mut self, command: &str, expected: &str, limit: Duration) -> anyhow::Result<()> {
        let began = Instant::now();
        loop {
            let (_, said) = self
                .try_run(command, limit)
                .with_context(|| format!("`{command}` in the guest"))
                .map_err(|why| self.explain(why))?;
            if said == expected {
                return Ok(());
            }
            if began.elapsed() > limit {
                let late = anyhow::anyhow!(
                    "`{command}` in the guest prints {said:?} and not {expected:?}, after {} s",
                    limit.as_secs()
                );
                return Err(self.explain(late));
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Executes a command of QEMU's monitor.
    ///
    /// # Errors
    /// If QEMU refuses it.
    fn control(&mut self, command: &str, arguments: &Value) -> anyhow::Result<Value> {
        let line = json!({"execute": command, "arguments": arguments}).to_string();
        self.monitor.send(&line)?;
        loop {
            let mut answer: Value = serde_json::from_str(&self.monitor.line(MONITOR)?)?;
            if let Some(result) = answer.get_mut("return") {
                return Ok(result.take());
            }
            if let Some(error) = answer.get("error") {
                bail!("QEMU refuses {command}: {}", error["desc"]);
            }
        }
    }

    /// Adds a disk that is served at `socket`.
    ///
    /// # Errors
    /// If QEMU refuses it.
    pub(crate) fn plug(&mut self, id: &str, socket: &Path) -> anyhow::Result<()> {
        let mut options = json!({
            "addr": {"type": "unix", "data": {"path": socket}},
            "server": false,
        });
        let (key, value) = self.reconnect.split_once('=').unwrap_or_default();
        options[key] = value.parse::<u64>()?.into();
        let backend = json!({"type": "socket", "data": options});
        self.control("chardev-add", &json!({"id": id, "backend": backend}))?;
        let device = json!({"driver": "vhost-user-blk-pci", "id": id, "chardev": id, "num-queues": 1});
        self.control("device_add", &device).map(drop)
    }

    /// Removes a disk that was added, and waits until the guest has released it.
    ///
    /// # Errors
    /// If the guest does not release it.
    pub(crate) fn unplug(&mut self, id: &str) -> anyhow::Result<()> {
        self.control("device_del", &json!({"id": id}))?;
        loop {
            let event = self.monitor.line(MONITOR).context("the guest keeps the disk")?;
            let event: Value = serde_json::from_str(&event)?;
            if event["event"] == "DEVICE_DELETED" && event["data"]["device"] == id {
                break;
            }
        }
        self.control("chardev-remove", &json!({"id": id})).map(drop)
    }

    /// Returns the process number of QEMU.
    pub(crate) fn process(&self) -> u32 {
        self.qemu.id()
    }

    /// Returns the indexes of a queue from the guest's memory: requests that the driver has offered, and
    /// completed ones.
    ///
    /// # Errors
    /// If QEMU does not support this query, as before version 7.2.
    pub(crate) fn queue_state(&mut self, queue: u16) -> anyhow::Result<QueueState> {
        // The query of a queue's status would stop the queue, because QEMU asks the daemon for its base.
        let device = "/machine/peripheral/disk/virtio-backend";
        let element = self.control(
            "x-query-virtio-queue-element",
            &json!({"path": device, "queue": queue}),
        )?;
        let index = |ring: &str| {
            let index = element[ring]["idx"].as_u64();
            let index = index.and_then(|index| u16::try_from(index).ok());
            index.with_context(|| format!("QEMU names no index: {element}"))
        };
        Ok(QueueState {
            offered: index("avail")?,
            completed: index("used")?,
        })
    }

    /// Ends the guest properly, and waits for QEMU.
    ///
    /// # Errors
    /// If QEMU does not end, or reports an error.
    pub(crate) fn power_off(mut self) -> anyhow::Result<()> {
        self.send("sync; poweroff -f")?;
        let began = Instant::now();
        while began.elapsed() < MONITOR {
            if let Some(status) = self.qemu.try_wait()? {
                ensure!(status.success(), "QEMU ends with {status}");
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        let late = anyhow::anyhow!("the guest does not power off");
        Err(self.explain(late))
    }

    /// Adds the end of the console to an error.
    fn explain(&self, why: anyhow::Error) -> anyhow::Error {
        if why.is::<aio_tools::interrupt::Interrupted>() {
            return why;
        }
        let console = std::fs::read(&self.console).unwrap_or_default();
        let messages = std::fs::read(self.console.with_file_name("qemu")).unwrap_or_default();
        anyhow::anyhow!(
            "{why:#}\nthe last lines of the console:\n{}\nQEMU:\n{}",
            last_lines(&console),
            last_lines(&messages)
        )
    }
}

fn connect(qemu: &mut Child, directory: &Path, interrupt: &Interrupt) -> anyhow::Result<(Port, Port)> {
    let mut is_alive = || match qemu.try_wait()? {
        None => Ok(()),
        Some(status) => {
            let messages = std::fs::read(directory.join("qemu")).unwrap_or_default();
            bail!("QEMU ends at once, {status}: {}", last_lines(&messages))
        }
    };
    let mut port = |name| Port::connect(&directory.join(name), MONITOR, interrupt, &mut is_alive);
    Ok((port("commands")?, port("monitor")?))
}

pub(crate) fn last_lines(text: &[u8]) -> String {
    let text = String::from_utf8_lossy(text);
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(20)..].join("\n")
}

fn end(qemu: &mut Child) {
    // QEMU may have ended by itself.
    qemu.kill().unwrap_or_default();
    qemu.wait().map(drop).unwrap_or_default();
}

impl Drop for Guest {
    fn drop(&mut self) {
        end(&mut self.qemu);
    }
}
