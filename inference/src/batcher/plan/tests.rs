use super::*;

#[derive(Clone, Debug)]
struct Item {
    tokens: usize,
    submitted: Instant,
    deadline: Option<Instant>,
    abandoned: bool,
    suspect: bool,
}

impl Waiting for Item {
    fn tokens(&self) -> usize {
        self.tokens
    }
    fn submitted(&self) -> Instant {
        self.submitted
    }
    fn deadline(&self) -> Option<Instant> {
        self.deadline
    }
    fn abandoned(&self) -> bool {
        self.abandoned
    }
    fn suspect(&self) -> bool {
        self.suspect
    }
}

fn view<'a>(interactive: &'a VecDeque<Item>, bulk: &'a VecDeque<Item>, passed_over: u32) -> QueueView<'a, Item> {
    QueueView { interactive, bulk, passed_over, last_interactive: None, budget: 100 }
}

const RULES: Rules = Rules {
    token_budget: 100,
    bulk_tokens: 40,
    pauses: false,
    interactive_window: Duration::from_secs(2),
    bulk_ageing: Duration::from_secs(1),
};

fn items(start: Instant, tokens: &[usize]) -> VecDeque<Item> {
    tokens
        .iter()
        .map(|&tokens| Item { tokens, submitted: start, deadline: None, abandoned: false, suspect: false })
        .collect()
}

fn fates(n: usize) -> Vec<Fate> {
    vec![Fate::Run; n]
}

#[test]
fn interactive_goes_first_and_bulk_fills_the_rest() {
    let now = Instant::now();
    let (interactive, bulk) = (items(now, &[30, 30]), items(now, &[30, 30, 30]));
    let batch = plan(&view(&interactive, &bulk, 0), now, &RULES);
    assert_eq!(batch, Batch { interactive: fates(2), bulk: fates(1), tokens: 90, suspect: false });
}

#[test]
fn a_text_over_the_budget_runs_alone() {
    let now = Instant::now();
    let (interactive, bulk) = (items(now, &[101, 1]), items(now, &[1]));
    let batch = plan(&view(&interactive, &bulk, 0), now, &RULES);
    assert_eq!(batch, Batch { interactive: fates(1), bulk: vec![], tokens: 101, suspect: false });
    let interactive = items(now, &[1, 101]);
    let batch = plan(&view(&interactive, &VecDeque::new(), 0), now, &RULES);
    assert_eq!(batch, Batch { interactive: fates(1), bulk: vec![], tokens: 1, suspect: false });
}

#[test]
fn expired_and_abandoned_texts_leave_without_costing_tokens() {
    let now = Instant::now();
    let mut lane = items(now, &[90, 90, 90, 90]);
    lane[0].deadline = Some(now);
    lane[1].abandoned = true;
    lane[2].deadline = Some(now + Duration::from_millis(1));
    let batch = plan(&view(&lane, &VecDeque::new(), 0), now, &RULES);
    assert_eq!(
        batch,
        Batch {
            interactive: vec![Fate::Expired, Fate::Abandoned, Fate::Run],
            bulk: vec![],
            tokens: 90,
            suspect: false
        }
    );
}

#[test]
fn aged_bulk_gets_a_share_of_its_own_after_being_passed_over() {
    let start = Instant::now();
    let now = start + Duration::from_secs(2);
    let (interactive, bulk) = (items(now, &[50, 50, 50]), items(start, &[20, 20, 20]));
    assert_eq!(
        plan(&view(&interactive, &bulk, 2), now, &RULES),
        Batch { interactive: fates(2), bulk: vec![], tokens: 100, suspect: false }
    );
    assert_eq!(
        plan(&view(&interactive, &bulk, 3), now, &RULES),
        Batch { interactive: fates(1), bulk: fates(2), tokens: 90, suspect: false }
    );
    // Not aged yet: interactive keeps the batch, even if one that is gone has waited longer.
    let mut young = items(now, &[20]);
    assert_eq!(plan(&view(&interactive, &young, 9), now, &RULES).bulk, vec![]);
    young.push_front(Item { abandoned: true, ..items(start, &[20])[0].clone() });
    assert!(!plan(&view(&interactive, &young, 9), now, &RULES).bulk.contains(&Fate::Run));
}

#[test]
fn bulk_keeps_batches_small_while_interactive_texts_come() {
    let start = Instant::now();
    let (none, bulk) = (VecDeque::new(), items(start, &[15; 20]));
    // (seconds since the last interactive text, the bulk texts of the batch)
    for (since, texts) in [(None, 6), (Some(0), 2), (Some(1), 2), (Some(2), 6)] {
        let last_interactive = since.map(|_| start);
        let now = start + Duration::from_secs(since.unwrap_or(0));
        let view = QueueView { last_interactive, ..view(&none, &bulk, 0) };
        assert_eq!(plan(&view, now, &RULES).bulk.len(), texts, "{since:?} s after");
    }
    // Interactive texts may fill the whole batch, bulk adds to it only up to its limit.
    let (few, many) = (items(start, &[20]), items(start, &[20; 20]));
    for (interactive, expected) in [(&few, (1, 1, 35)), (&many, (5, 0, 100))] {
        let view = QueueView { last_interactive: Some(start), ..view(interactive, &bulk, 0) };
        let batch = plan(&view, start, &RULES);
        assert_eq!((batch.interactive.len(), batch.bulk.len(), batch.tokens), expected);
    }
    // An over-long bulk text still gets its turn, alone.
    let long = items(start, &[90, 5]);
    let batch = plan(&QueueView { last_interactive: Some(start), ..view(&none, &long, 0) }, start, &RULES);
    assert_eq!((batch.bulk.len(), batch.tokens), (1, 90));
}

#[test]
fn a_worker_with_little_memory_gets_smaller_batches() {
    let now = Instant::now();
    let (interactive, bulk) = (items(now, &[10; 9]), items(now, &[10; 9]));
    let batch = plan(&QueueView { budget: 30, ..view(&interactive, &bulk, 0) }, now, &RULES);
    assert_eq!((batch.interactive.len(), batch.bulk.len()), (3, 0));
}

#[test]
fn a_suspect_runs_alone() {
    let now = Instant::now();
    let mut interactive = items(now, &[10, 10, 10]);
    interactive[1].suspect = true;
    let bulk = items(now, &[10]);
    assert_eq!(plan(&view(&interactive, &bulk, 0), now, &RULES).tokens, 20, "bulk may fill, the suspect may not");
    interactive.pop_front();
    let batch = plan(&view(&interactive, &bulk, 0), now, &RULES);
    assert_eq!((batch.interactive.len(), batch.bulk.len(), batch.suspect), (1, 0, true));
}

#[test]
fn a_free_worker_prepares_what_the_next_batch_can_hold_and_lets_no_interactive_text_wait_for_bulk() {
    let load = Load::default();
    let (interactive, bulk) = (Step::Prepare(Lane::Interactive), Step::Prepare(Lane::Bulk));
    let table = [
        (Load { raw_interactive: 1, raw_bulk: 9, ready: 9, ..load }, interactive),
        (Load { raw_interactive: 1, ready: 9, ready_interactive_tokens: 100, ..load }, Step::Run),
        (Load { raw_bulk: 9, ready: 3, ready_bulk_tokens: 99, ..load }, bulk),
        (Load { raw_bulk: 9, ready: 3, ready_bulk_tokens: 100, ..load }, Step::Run),
        (Load { raw_bulk: 9, ready: 1, ready_interactive_tokens: 9, ..load }, Step::Run),
        (Load { raw_bulk: 9, ready: 1, ready_interactive_tokens: 9, passed_over: MAX_PASSED_OVER, ..load }, bulk),
        (Load { ready: 1, ..load }, Step::Run),
        (load, Step::Wait),
        (Load { closed: true, ..load }, Step::Stop),
        (Load { raw_bulk: 1, closed: true, ..load }, bulk),
        (Load { ready: 1, closed: true, ..load }, Step::Run),
    ];
    for (load, expected) in table {
        assert_eq!(step(Role::All, &load, &RULES), expected, "{load:?}");
    }
}

#[test]
fn who_prepares_keeps_two_batches_ready_and_who_runs_waits_for_what_is_being_prepared() {
    let load = Load::default();
    let (interactive, bulk) = (Step::Prepare(Lane::Interactive), Step::Prepare(Lane::Bulk));
    let closed = Load { closed: true, ..load };
    // (what there is, what one that prepares does, what one that runs does)
    let table = [
        (load, Step::Wait, Step::Wait),
        (Load { raw_interactive: 1, raw_bulk: 1, ..load }, interactive, Step::Wait),
        (Load { raw_interactive: 1, raw_bulk: 1, passed_over: MAX_PASSED_OVER, ..load }, bulk, Step::Wait),
        (Load { raw_bulk: 1, ready: 5, ready_bulk_tokens: 199, ..load }, bulk, Step::Run),
        (Load { raw_bulk: 1, ready: 5, ready_bulk_tokens: 200, ..load }, Step::Wait, Step::Run),
        (Load { raw_interactive: 1, ready: 5, ready_bulk_tokens: 200, ..load }, interactive, Step::Run),
        (Load { raw_interactive: 1, raw_bulk: 1, ready: 5, ready_interactive_tokens: 200, ..load }, bulk, Step::Run),
        (Load { preparing: 1, ..closed }, Step::Stop, Step::Wait),
        (Load { raw_bulk: 1, ..closed }, bulk, Step::Wait),
        (Load { ready: 1, ..closed }, Step::Stop, Step::Run),
        (closed, Step::Stop, Step::Stop),
    ];
    for (load, prepares, runs) in table {
        assert_eq!((step(Role::Prepare, &load, &RULES), step(Role::Run, &load, &RULES)), (prepares, runs), "{load:?}");
    }
}

const PAUSING: Rules = Rules { pauses: true, ..RULES };

#[test]
fn bulk_alone_fills_batches_that_pause_and_beside_interactive_texts_keeps_its_limit() {
    let start = Instant::now();
    let (none, one, bulk) = (VecDeque::new(), items(start, &[20]), items(start, &[15; 20]));
    let mut gone = one.clone();
    gone[0].abandoned = true;
    for (interactive, expected) in [(&none, (0, 6, 90)), (&one, (1, 1, 35)), (&gone, (1, 6, 90))] {
        let view = QueueView { last_interactive: Some(start), ..view(interactive, &bulk, 0) };
        let batch = plan(&view, start, &PAUSING);
        assert_eq!((batch.interactive.len(), batch.bulk.len(), batch.tokens), expected);
    }
    // Aged bulk that leaves no room for who waits does not fill the batch either.
    let (now, long) = (start + Duration::from_secs(2), items(start, &[90]));
    let aged = QueueView { last_interactive: Some(now), ..view(&long, &bulk, MAX_PASSED_OVER) };
    assert_eq!(plan(&aged, now, &PAUSING).bulk.len(), 2);
}

#[test]
fn bulk_gives_three_batches_in_its_pauses_a_long_text_half_of_itself_and_others_nothing() {
    use Lane::{Bulk, Interactive};
    let given = |tokens, longest| Concession { tokens, longest, whole: tokens > longest };
    for (texts, budget, expected) in [
        (vec![(Bulk, 5)], 100, given(300, 100)),
        (vec![(Bulk, 5), (Bulk, 60)], 30, given(90, 30)), // memory is short
        (vec![(Bulk, 60), (Interactive, 5)], 100, Concession::NONE),
        (vec![(Interactive, LONG_TOKENS)], 100, given(LONG_TOKENS / 2, LONG_TOKENS / 2)),
        (vec![(Interactive, LONG_TOKENS - 1)], 100, Concession::NONE),
        (vec![(Interactive, LONG_TOKENS), (Interactive, 1)], 100, Concession::NONE),
    ] {
        assert_eq!(concession(texts.iter().copied(), budget, &RULES), expected, "{texts:?}");
    }
}

#[test]
fn in_a_pause_the_oldest_texts_run_that_fit_and_none_overtakes_another() {
    let now = Instant::now();
    let given = Concession { tokens: 40, longest: 30, whole: false };
    for (tokens, runs, whole) in [
        (&[10, 10, 10, 10, 10][..], 3, 3),
        (&[10, 31, 10], 1, 1), // too long for a pause
        (&[31, 1], 0, 1),      // unless nothing has run in one yet
        (&[25, 11, 5], 1, 1),  // no room for the second
        (&[], 0, 0),
    ] {
        assert_eq!(in_pause(&items(now, tokens), now, given), fates(runs), "{tokens:?}");
        let whole_is_left = Concession { whole: true, ..given };
        assert_eq!(in_pause(&items(now, tokens), now, whole_is_left), fates(whole), "{tokens:?}");
    }
    let mut used = Concession { tokens: 40, longest: 30, whole: true };
    used.take(35);
    assert_eq!(used, Concession { tokens: 5, longest: 30, whole: false });
    assert_eq!(given.within(used).tokens, 5, "what runs in a pause gives no more than that has left");
    let mut lane = items(now, &[10, 90, 10, 10]);
    lane[1].abandoned = true;
    lane[3].suspect = true;
    assert_eq!(in_pause(&lane, now, given), [Fate::Run, Fate::Abandoned, Fate::Run]);
    assert_eq!(in_pause(&lane, now, Concession::NONE), []);
}
