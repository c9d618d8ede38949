//! The syntax of `--export`, and its errors.

use super::*;
use clap::CommandFactory as _;

#[test]
fn understands_exports() {
    let disk: Export = "path=disk.raw,socket=a.sock,queues=4".parse().unwrap();
    let expected = Export {
        queues: 4,
        ..Export::new(Source::File("disk.raw".into()), "a.sock")
    };
    assert_eq!(disk, expected);
    let disk: Export = "readonly,socket=/x/b=c.sock,ram=64M".parse().unwrap();
    let expected = Export {
        readonly: true,
        ..Export::new(Source::Ram(64 << 20), "/x/b=c.sock")
    };
    assert_eq!(disk, expected);
    assert_eq!(
        "null=512,socket=s".parse::<Export>().unwrap().source,
        Source::Null(512)
    );
    let disk: Export = "path=a,socket=s,lock=off,format=raw,discard=off".parse().unwrap();
    let expected = Export {
        lock: false,
        raw: true,
        discard: false,
        ..Export::new(Source::File("a".into()), "s")
    };
    assert_eq!(disk, expected);
    assert!("path=a,socket=s,lock=on".parse::<Export>().unwrap().lock);
}

#[test]
fn errors_name_a_remedy() {
    let error = |text: &str| text.parse::<Export>().unwrap_err();
    assert!(error("socket=s").contains("path=FILE"));
    assert!(error("ram=1M,queues=2").contains("socket=PATH"));
    assert!(error("ram=1M,null=1M,socket=s").contains("one disk"));
    assert!(error("ram=1X,socket=s").contains("64M"));
    assert!(error("ram=511,socket=s").contains("512"));
    assert!(error("ram=99999999T,socket=s").contains("not a size"));
    assert!(error("ram=1M,socket=").contains("needs a value"));
    assert!(error("path,socket=s").contains("needs a value"));
    assert!(error("ram=1M,socket=s,queues=0").contains("1 to 256"));
    assert!(error("ram=1M,socket=s,queues=257").contains("1 to 256"));
    assert!(error("ram=1M,socket=s,readonly=yes").contains("not known"));
    assert!(error("ram=1M,socket=s,colour=red").contains("colour=red"));
    assert!(error("").contains("not known"));
    assert!(error("path=a,socket=s,lock=yes").contains("lock=on or lock=off"));
    assert!(error("path=a,socket=s,discard").contains("needs a value"));
    assert!(error("path=a,socket=s,format=qcow2").contains("convert -O raw"));
    assert!(error("ram=1M,socket=s,format=raw").contains("need path=FILE"));
    assert!(error("ram=1M,socket=s,lock=on").contains("need path=FILE"));
}

#[test]
fn c28_block_sizes_and_caches_are_named() {
    let export: Export = "path=a,socket=s,block-size=4096,cache=none".parse().unwrap();
    assert_eq!((export.block_size, export.direct), (4096, true));
    let export: Export = "path=a,socket=s,block-size=512,cache=writeback".parse().unwrap();
    assert_eq!(export, Export::new(Source::File("a".into()), "s"));
    for (wrong, remedy) in [
        ("path=a,socket=s,block-size=1024", "block-size=4096"),
        ("path=a,socket=s,cache=writethrough", "cache=none"),
        ("ram=1M,socket=s,cache=none", "need path=FILE"),
        ("ram=2K,socket=s,block-size=4096", "a larger size"),
    ] {
        let error = wrong.parse::<Export>().unwrap_err();
        assert!(error.contains(remedy), "{error}");
    }
}

#[test]
fn c34_sockets_have_a_mode_and_a_group_or_are_passed() {
    let export: Export = "ram=1M,socket=a,mode=0660,group=kvm".parse().unwrap();
    assert_eq!((export.mode, export.group.as_deref()), (Some(0o660), Some("kvm")));
    let export: Export = "ram=1M,socket=fd:disk".parse().unwrap();
    assert_eq!(export.socket.as_deref().and_then(passed_name), Some("disk"));
    for (wrong, remedy) in [
        ("mode=888", "such as 660"),
        ("mode=1777", "at most 777"),
        ("mode=+77", "such as 660"),
        ("mode=", "needs a value"),
        ("group", "needs a value"),
    ] {
        let error = format!("ram=1M,socket=a,{wrong}").parse::<Export>().unwrap_err();
        assert!(error.contains(remedy), "{error}");
    }
    for key in ["mode=660", "group=kvm"] {
        let error = format!("ram=1M,socket=fd:disk,{key}")
            .parse::<Export>()
            .unwrap_err();
        assert!(error.contains("SocketMode="), "{error}");
    }
}

#[test]
fn an_export_names_its_thread() {
    let export: Export = "ram=1M,socket=a,iothread=3".parse().unwrap();
    assert_eq!(export.iothreads, IoThreads::These(vec![3]));
    let export: Export = "ram=1M,socket=a,iothread=2+0+63".parse().unwrap();
    assert_eq!(export.iothreads, IoThreads::These(vec![2, 0, 63]));
    let export: Export = "ram=1M,socket=a,iothread=all".parse().unwrap();
    assert_eq!(export.iothreads, IoThreads::All);
    let export: Export = "ram=1M,socket=a,queues=2,iothread=0+1".parse().unwrap();
    assert_eq!(export.queues, 2);
    for (wrong, remedy) in [
        ("ram=1M,socket=a,queues=1,iothread=0+1", "raise queues="),
        ("ram=1M,name=a,iothread=0+1", "add socket=PATH"),
        ("ram=1M,socket=a,iothread=1+0+1", "names the thread 1 twice"),
    ] {
        let error = wrong.parse::<Export>().unwrap_err();
        assert!(error.contains(remedy), "{error}");
    }
    for wrong in [
        "iothread=-1",
        "iothread=64",
        "iothread=io1",
        "iothread=",
        "iothread=1+",
        "iothread=1+64",
        "iothread=1,2",
        "iothread=All",
    ] {
        let error = format!("ram=1M,socket=a,{wrong}").parse::<Export>().unwrap_err();
        assert!(error.contains("iothread=") && error.len() > 20, "{error}");
    }
}

#[test]
fn names_follow_from_paths() {
    for (text, nbd, log) in [
        (
            "path=/images/disk.raw,socket=/run/a.sock",
            "disk.raw",
            "/run/a.sock",
        ),
        ("path=/images/disk.raw", "disk.raw", "disk.raw"),
        ("ram=1M,socket=/run/a.sock", "a.sock", "/run/a.sock"),
        ("ram=1M", "ram", "ram"),
        ("null=1M", "null", "null"),
        ("null=1M,socket=/run/a.sock,name=my disk", "my disk", "my disk"),
    ] {
        let export: Export = text.parse().unwrap();
        assert_eq!((&*export.nbd_name(), &*export.log_name()), (nbd, log), "{text}");
    }
    let long = format!("ram=1M,name={}", "n".repeat(256));
    assert!(long.parse::<Export>().unwrap_err().contains("at most 255"));
}

#[test]
fn c33_a_key_that_is_given_twice_is_an_error() {
    for (text, key) in [
        ("ram=1M,socket=a,socket=b", "socket"),
        ("ram=1M,socket=a,socket=a", "socket"),
        ("ram=1M,socket=a,queues=2,queues=4", "queues"),
        ("ram=1M,ram=2M,socket=a", "ram"),
        ("ram=1M,socket=a,readonly,readonly", "readonly"),
        ("ram=1M,socket=a,serial=x,serial=x", "serial"),
        ("ram=1M,socket=a,name=x,name=y", "name"),
    ] {
        let error = text.parse::<Export>().unwrap_err();
        assert!(
            error.contains(&format!("{key} is given twice")),
            "{text}: {error}"
        );
    }
}

#[test]
fn c25_serials_are_short_and_printable() {
    let serial = |text: &str| format!("ram=1M,socket=a,serial={text}").parse::<Export>();
    assert_eq!(
        serial("WD-WX 123456789-ABCD").unwrap().serial.as_deref(),
        Some("WD-WX 123456789-ABCD")
    );
    for wrong in ["WD-WX 123456789-ABCDE", "a\nb", "\u{e4}"] {
        assert!(
            serial(wrong).unwrap_err().contains("at most 20 printable"),
            "{wrong:?}"
        );
    }
    assert!(serial("").unwrap_err().contains("needs a value"));
    assert!("ram=1M,socket=a,name=a\tb".parse::<Export>().is_err());
}

#[test]
fn each_key_is_documented() {
    let help = crate::Args::command().render_long_help().to_string();
    let manual = include_str!("../../../../docs/blockd.md");
    let parts: Vec<&str> = SYNTAX
        .split(['[', ']', ',', '|'])
        .filter(|part| !["", "off", "4096", "none", "N+N", "all"].contains(part))
        .collect();
    assert_eq!(parts.len(), 16);
    for part in parts {
        let unknown = Draft::default()
            .set(part)
            .is_err_and(|error| error.contains("not known"));
        assert!(!unknown, "{part}");
        // The line with SYNTAX, and the explanation.
        assert!(help.matches(part).count() >= 2, "{part} is missing in:\n{help}");
        assert!(
            manual.contains(&format!("`{part}")),
            "{part} is missing in docs/blockd.md"
        );
    }
}
