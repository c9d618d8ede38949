use super::*;

/// Returns the uses that the step finds in a file, as `line: text`.
fn found(file: &str, text: &str) -> Vec<String> {
    let mut uses = uses_in(file, text, &Phrases::all());
    uses.sort_by_key(|found| found.line);
    uses.iter()
        .map(|found| format!("{}: {}", found.line, found.text))
        .collect()
}

#[track_caller]
fn nothing(file: &str, text: &str) {
    assert_eq!(found(file, text), Vec::<String>::new());
}

#[test]
fn good_text_passes() {
    nothing(
        "aio-context/src/good.rs",
        "//! Look at the page: a handler asks for a share of the time, and holds a line in turn.\n\
         // A note on the side: the page says so and was told, and a broken link is parked here. See `std::thread::park`.\n\
         #[cold]\n\
         fn lookup(hotel: &str) -> Outlook { hotel.on_hold(\"the Line, the Run and the Place\") }\n\
         fn d2_a_descriptor_that_is_ready_when_the_loop_looks_again_is_reported_once_by_look() {}\n",
    );
    nothing(
        "README.md",
        "A cold cache, a hot path, a warm-up. Ask a question; the answer comes later. The rest is left.\n",
    );
}

#[test]
fn a_doc_comment_that_opens_with_a_relative_clause_is_found() {
    let text = "//! What this is for.\n//! What goes on in the same paragraph.\n\n/// Whatever was found.\nfn f() {}\n    /// Good.\n    ///\n    \
                /// Who waits.\n    fn g() {}\n";
    assert_eq!(
        found("a/src/b.rs", text),
        ["1: What this is for.", "4: Whatever was found.", "8: Who waits."]
    );
    nothing(
        "a/src/b.rs",
        "/// # What it does not do\n/// Whether it waits. The event\n/// that ..\n///\n/// ```\n/// // What a test says.\n/// What();\n/// ```\nfn f() {}\n// What is this?\n",
    );
    nothing("docs/c.md", "What is this?\n");
}

#[test]
fn a_word_in_a_comment_or_in_prose_is_found() {
    assert_eq!(
        found("a/src/b.rs", "fn f() {}\n// Glances are short.\n"),
        ["2: glances"]
    );
    assert_eq!(
        found("docs/c.md", "It was\nturned\naway, and nobody came.\n"),
        ["2: turned away", "3: nobody"]
    );
    assert_eq!(
        found("a/src/b.rs", "/// A handler that is owed\n/// a look\n"),
        ["1: owed a look", "2: a look"]
    );
    assert_eq!(
        found("a/src/b.rs", "/* one /* two */ a rendezvous */\n"),
        ["1: rendezvous"]
    );
    assert_eq!(
        found("docs/c.md", "Somebody has to tell\nwhoever waits.\n"),
        ["1: somebody", "2: whoever"]
    );
    assert_eq!(
        found("a/src/b.rs", "let why = \"the wake-up is deaf\";\n"),
        ["1: deaf"]
    );
}

#[test]
fn a_word_in_an_identifier_is_found() {
    assert_eq!(found("a/src/b.rs", "self.glance_on = true;\n"), ["1: glance"]);
    assert_eq!(
        found("a/src/b.rs", "struct HotHandlers;\nconst LAST_LOOK: u8 = 0;\n"),
        ["1: hot handlers", "2: last look"]
    );
    assert_eq!(
        found("a/src/b.rs", "enum DeafToIn { Stranded }\n"),
        ["1: deaf", "1: stranded"]
    );
    assert_eq!(
        found("a/src/b.rs", "fn is_turned_away() {}\n"),
        ["1: turned away"]
    );
}

#[test]
fn ambiguous_words_are_names_in_some_places_only() {
    assert_eq!(
        found("aio-context/src/b.rs", "self.look_again(); // look again\n"),
        ["1: look_again"]
    );
    assert_eq!(
        found("aio-notify/src/b.rs", "//! A Line is a [`Line`].\nstruct Line;\n"),
        ["1: Line", "2: Line"]
    );
    assert_eq!(
        found("proofs/README.md", "The author wrote `author.rs`.\n"),
        ["1: author"]
    );
    nothing("tools/demo/src/b.rs", "struct Line; fn look() {}\n");
    assert_eq!(
        found("examples/blockd/src/b.rs", "let link = Link::new();\n"),
        ["1: Link"]
    );
    nothing("aio-backend-ppoll/src/b.rs", "Link::new();\n");
}

#[test]
fn strings_and_characters_are_no_code() {
    let text = "let a = \"a \\\" Line\"; let b = r#\"a \" Line\"#; let c = br\"Line\";\nlet d = '\"'; Line::new('\\'', \"\n Line\n\"); Line\n\
                fn f<'a>(line: &'a Line) {} let r = 1;\n";
    assert_eq!(
        found("aio-notify/src/b.rs", text),
        ["2: Line", "4: Line", "5: Line"]
    );
}

#[test]
fn fixed_names_and_exempt_files_pass() {
    nothing("bench/src/b.rs", "case(\"cooled\", n)\n");
    assert_eq!(
        found("aio-context/src/b.rs", "// A cooled handler\n"),
        ["1: cooled"]
    );
    for file in [
        "CHANGELOG.md",
        "xtask/src/check/words.rs",
        "xtask/src/check/words/list.rs",
        "Cargo.toml",
        "docs/demo.svg",
    ] {
        assert!(!is_covered(file), "{file}");
    }
    for file in [
        "README.md",
        "docs/rules.md",
        "aio-context/src/lib.rs",
        "xtask/src/check/tidy.rs",
    ] {
        assert!(is_covered(file), "{file}");
    }
}

fn glances(file: &str, lines: usize) -> Vec<Use> {
    uses_in(file, &"// a glance\n".repeat(lines), &Phrases::all())
}

#[test]
fn a_baseline_that_is_exact_passes() {
    let (baseline, uses) = (parse("# left\nglance: 3\n").unwrap(), glances("a.rs", 3));
    assert_eq!(risen(&baseline, &uses, &BTreeSet::new()), Vec::<String>::new());
    assert_eq!(fallen(&baseline, &uses), Vec::<String>::new());
}

#[test]
fn more_uses_than_the_baseline_are_listed_with_the_replacement() {
    let (baseline, uses) = (parse("glance: 2\n").unwrap(), glances("a.rs", 3));
    let faults = risen(&baseline, &uses, &BTreeSet::new());
    assert_eq!(faults.len(), 4, "{faults:#?}");
    assert_eq!(faults[0], "a.rs:1: \"glance\" is retired: write pre-sleep spin");
    assert_eq!(
        faults[3],
        "\"glance\": 3 uses, 2 are allowed: replace the new ones; 3 of them are listed above"
    );
    let faults = risen(&baseline, &uses, &BTreeSet::from([("a.rs".to_owned(), 2)]));
    assert_eq!(faults.len(), 2, "only the line that changed: {faults:#?}");
    assert!(faults[0].starts_with("a.rs:2: "));
    assert_eq!(
        risen(&BTreeMap::new(), &uses, &BTreeSet::new()).len(),
        4,
        "no line is zero"
    );
}

#[test]
fn fewer_uses_than_the_baseline_ask_to_lower_it() {
    let baseline = parse("deaf: 1\nglance: 4\n").unwrap();
    let faults = fallen(&baseline, &glances("a.rs", 3));
    assert_eq!(faults.len(), 2, "{faults:#?}");
    assert!(
        faults[0].contains("\"deaf\" has 0 uses left, not 1"),
        "{faults:#?}"
    );
    assert!(faults[1].ends_with("lower the baseline with AIO_BLESS=1 cargo xtask check --only words"));
}

#[test]
fn a_lowered_baseline_has_the_remaining_uses_and_never_rises() {
    let baseline = parse("deaf: 1\nglance: 4\nnobody: 1\n").unwrap();
    let mut uses = glances("a.rs", 3);
    uses.extend(uses_in(
        "b.rs",
        "// nobody\n// nobody\n// roof\n",
        &Phrases::all(),
    ));
    let text = lowered(&baseline, &counts(&uses));
    assert_eq!(text, format!("{HEAD}glance: 3\nnobody: 1\n"));
    assert_eq!(parse(&text).unwrap().len(), 2);
}

#[test]
fn a_baseline_that_cannot_be_read_names_a_remedy() {
    let why = |text| parse(text).unwrap_err().to_string();
    assert!(
        why("# left\nglance 3\n")
            .contains("words.baseline:2: cannot read \"glance 3\": write \"word: number\"")
    );
    assert!(why("glance: many\n").contains("cannot read"));
    assert!(why("gaze: 3\n").contains("words.baseline:1: \"gaze\" is not a retired word: delete the line"));
}

#[test]
fn added_lines_are_read_from_a_diff() {
    let diff = "diff --git a.rs a.rs\n--- a.rs\n+++ a.rs\n@@ -1,2 +3,2 @@ fn f() {\n+a\n+b\n@@ -9 +11 @@\n+c\n@@ -20,2 +20,0 @@\n-d\n\
                --- b.rs\n+++ b.rs\n@@ -0,0 +1 @@\n+e\n";
    let lines = added(diff);
    let lines: Vec<_> = lines
        .iter()
        .map(|(file, line)| format!("{file}:{line}"))
        .collect();
    assert_eq!(lines, ["a.rs:3", "a.rs:4", "a.rs:11", "b.rs:1"]);
}

#[test]
fn the_list_is_consistent() {
    let mut names = BTreeSet::new();
    for word in WORDS {
        assert!(names.insert(word.name), "{} is there twice", word.name);
        assert!(
            !word.instead.is_empty() && !word.name.contains(": "),
            "{}",
            word.name
        );
        assert!(
            !word.words.is_empty() || !word.names.is_empty(),
            "{} matches nothing",
            word.name
        );
        assert_eq!(word.names.is_empty(), word.under.is_empty(), "{}", word.name);
        let is_lower = |text: &&str| {
            text.chars()
                .all(|letter| letter.is_ascii_lowercase() || matches!(letter, '|' | ' '))
        };
        assert!(word.words.iter().all(is_lower), "{}", word.name);
    }
}
