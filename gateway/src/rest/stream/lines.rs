//! Texts out of a body that comes in pieces: one JSON object a line.
//!
//! The guarantee: the lines are those of the whole body, wherever it is cut into pieces. What is wrong with a line is wrong
//! with that line alone, and no more of one is kept than a text can need. Blank lines are passed over.

use axum::body::{Body, BodyDataStream, Bytes};
use futures::{Stream, StreamExt, stream::unfold};
use serde_json::Value;

use crate::{
    Limits,
    api::ScoreItem,
    errors::ProblemCode,
    problem::Problem,
    rest::body::{from_json_at, unfit_id},
    streaming::Entry,
};

/// JSON may spell one byte of a text with six (`\u0001`), and an id wants room beside it.
const ESCAPED: usize = 6;
const BESIDE: usize = 4096;

/// The entries of a body, with their ids.
pub(super) fn entries(
    body: Body,
    limits: &Limits,
) -> impl Stream<Item = Result<Entry<Option<Value>>, Problem>> + Send + use<> {
    let source = Source {
        body: body.into_data_stream(),
        lines: Lines::new(ESCAPED * limits.text_bytes + BESIDE),
        most: limits.long_body_bytes,
        read: 0,
        number: 0,
        ended: false,
    };
    unfold(source, |mut source| async move { source.next().await.transpose().map(|entry| (entry, source)) })
}

struct Source {
    body: BodyDataStream,
    lines: Lines,
    /// Bytes in all.
    most: u64,
    read: u64,
    /// Of the last line.
    number: usize,
    ended: bool,
}

impl Source {
    async fn next(&mut self) -> Result<Option<Entry<Option<Value>>>, Problem> {
        loop {
            let line = match self.ended {
                false => self.lines.next(),
                true => self.lines.last(),
            };
            if let Some(line) = line {
                self.number += 1;
                if let Some(entry) = read(line, self.number, self.lines.most) {
                    return Ok(Some(entry));
                }
                continue;
            }
            if self.ended {
                return Ok(None);
            }
            match self.body.next().await {
                Some(Ok(piece)) => {
                    self.read += piece.len() as u64;
                    if self.read > self.most {
                        self.ended = true;
                        let detail = format!("the body is over {} bytes; send several calls", self.most);
                        return Err(Problem::new(ProblemCode::BodyTooLarge, detail));
                    }
                    self.lines.add(piece);
                }
                Some(Err(_)) => return Err(Problem::new(ProblemCode::Cancelled, "the body ended before its time")),
                None => self.ended = true,
            }
        }
    }
}

/// What a line says; nothing if it is blank.
fn read(line: Line, number: usize, most: usize) -> Option<Entry<Option<Value>>> {
    let line = match line {
        Line::Whole(line) if line.trim_ascii().is_empty() => return None,
        Line::Whole(line) => line,
        Line::TooLong => {
            let detail = format!("line {number} is over {most} bytes, and so is its text too long; split it");
            return Some(Entry { tag: None, text: Err(Problem::new(ProblemCode::TextTooLong, detail)) });
        }
    };
    let item: ScoreItem = match from_json_at(&line, number) {
        Ok(item) => item,
        Err(problem) => return Some(Entry { tag: None, text: Err(problem) }),
    };
    match unfit_id(item.id.as_ref()) {
        None => Some(Entry { tag: item.id, text: Ok(item.text) }),
        Some(reason) => {
            let problem = Problem::new(ProblemCode::InvalidInput, format!("line {number}: {reason}"));
            Some(Entry { tag: None, text: Err(problem.field("/id", reason)) })
        }
    }
}

/// One line, without its end.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Line {
    Whole(Vec<u8>),
    /// It had more bytes than are kept.
    TooLong,
}

/// Cuts pieces into lines.
struct Lines {
    /// Bytes of a line that are kept.
    most: usize,
    /// What came and was not yet looked at.
    piece: Bytes,
    /// The beginning of a line whose end has not come.
    begun: Vec<u8>,
    too_long: bool,
}

impl Lines {
    fn new(most: usize) -> Self {
        Self { most, piece: Bytes::new(), begun: Vec::new(), too_long: false }
    }

    /// Adds what comes next, once [`Lines::next`] has nothing more to say.
    fn add(&mut self, piece: Bytes) {
        self.piece = piece;
    }

    /// The next line that is whole.
    fn next(&mut self) -> Option<Line> {
        match self.piece.iter().position(|byte| *byte == b'\n') {
            Some(end) => {
                let rest = self.piece.split_off(end + 1);
                let line = std::mem::replace(&mut self.piece, rest);
                self.keep(&line[..end]);
                Some(self.end())
            }
            None => {
                let piece = std::mem::take(&mut self.piece);
                self.keep(&piece);
                None
            }
        }
    }

    /// The last line, if no line's end stood behind it.
    fn last(&mut self) -> Option<Line> {
        (self.too_long || !self.begun.is_empty()).then(|| self.end())
    }

    fn keep(&mut self, part: &[u8]) {
        if self.too_long || self.begun.len() + part.len() > self.most {
            self.too_long = true;
            self.begun = Vec::new();
        } else {
            self.begun.extend_from_slice(part);
        }
    }

    fn end(&mut self) -> Line {
        let begun = std::mem::take(&mut self.begun);
        if std::mem::take(&mut self.too_long) { Line::TooLong } else { Line::Whole(begun) }
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use proptest::prelude::*;

    use super::*;

    fn cut(pieces: &[&[u8]], most: usize) -> Vec<Line> {
        let mut lines = Lines::new(most);
        let mut found = Vec::new();
        for piece in pieces {
            lines.add(Bytes::copy_from_slice(piece));
            found.extend(std::iter::from_fn(|| lines.next()));
        }
        found.extend(lines.last());
        found
    }

    /// What the lines of a body are, said of the whole of it.
    fn split(body: &[u8], most: usize) -> Vec<Line> {
        let mut lines: Vec<&[u8]> = body.split(|byte| *byte == b'\n').collect();
        // What stands behind the last end is a line only if there is something.
        lines.pop_if(|last| last.is_empty());
        lines
            .into_iter()
            .map(|line| if line.len() > most { Line::TooLong } else { Line::Whole(line.to_vec()) })
            .collect()
    }

    async fn read_all(pieces: Vec<Vec<u8>>, limits: &Limits) -> Vec<Result<Entry<Option<Value>>, Problem>> {
        let pieces = futures::stream::iter(pieces.into_iter().map(|piece| Ok::<_, Infallible>(Bytes::from(piece))));
        entries(Body::from_stream(pieces), limits).collect().await
    }

    #[test]
    fn a_line_has_its_limit_and_the_next_one_is_whole_again() {
        let whole = |line: &str| Line::Whole(line.into());
        assert_eq!(cut(&[b"abcd\nab", b"cde\nabcd", b"\n"], 4), [whole("abcd"), Line::TooLong, whole("abcd")]);
        assert_eq!(cut(&[b"\n\n"], 4), [whole(""), whole("")]);
        assert_eq!(cut(&[b"abcdefgh", b"ijk"], 4), [Line::TooLong]);
        assert_eq!(cut(&[], 4), []);
    }

    #[tokio::test]
    async fn what_is_wrong_with_a_line_is_its_own_error_and_names_it() {
        use ProblemCode as P;
        let limits = Limits { text_bytes: 10, ..Limits::default() };
        let long = format!("{{\"text\":\"{}\"}}", "x".repeat(ESCAPED * 10 + BESIDE));
        let body = [
            b"{\"id\":7,\"text\":\"a\"}\r\n\n  \n".as_slice(),
            b"{\"text\": \"caf\xe9\"}\n",
            b"{\"text\": }\n[]\n\"x\"\n{\"id\":\"a\"}\n{\"text\":\"a\",\"lang\":\"en\"}\n{\"id\":1.5,\"text\":\"a\"}\n",
            b"{\"text\":\"\\ud800\"}\n",
            long.as_bytes(),
            b"\n{\"id\":\"last\",\"text\":\"b\"}",
        ]
        .concat();
        let found = read_all(vec![body], &limits).await;
        let seen: Vec<_> = found
            .iter()
            .map(|entry| {
                let entry = entry.as_ref().expect("no error of the stream");
                let problem = entry.text.as_ref().err();
                let line = problem.is_none_or(|problem| problem.detail.contains("line "));
                (entry.tag.clone(), problem.map(Problem::code), line)
            })
            .collect();
        let bad = |code| (None, Some(code), true);
        assert_eq!(
            seen,
            [
                (Some(Value::from(7)), None, true),
                bad(P::InvalidJson),
                bad(P::InvalidJson),
                bad(P::InvalidInput),
                bad(P::InvalidInput),
                bad(P::InvalidInput),
                bad(P::InvalidInput),
                bad(P::InvalidInput),
                bad(P::InvalidJson),
                bad(P::TextTooLong),
                (Some(Value::from("last")), None, true),
            ]
        );
        let said =
            |index: usize| found[index].as_ref().expect("read").text.as_ref().expect_err("a problem").detail.clone();
        assert!(said(1).contains("line 4, column"), "{}", said(1));
        assert!(said(9).contains("line 12 is over 4156 bytes"), "{}", said(9));
    }

    #[tokio::test]
    async fn a_body_over_its_limit_ends_the_stream_after_what_was_read() {
        let limits = Limits { long_body_bytes: 30, ..Limits::default() };
        let found = read_all(vec![b"{\"text\":\"a\"}\n".to_vec(); 3], &limits).await;
        assert_eq!(found.len(), 3);
        assert!(found[..2].iter().all(|entry| entry.as_ref().is_ok_and(|entry| entry.text.is_ok())));
        assert_eq!(found[2].as_ref().err().map(Problem::code), Some(ProblemCode::BodyTooLarge));
    }

    /// Bytes among which ends of lines are common.
    fn bytes() -> impl Strategy<Value = Vec<u8>> {
        prop::collection::vec(prop_oneof![3 => Just(b'\n'), 1 => Just(b'\r'), 16 => any::<u8>()], 0..300)
    }

    proptest! {
        #[test]
        fn lines_are_the_same_wherever_a_body_is_cut(body in bytes(), cuts: Vec<prop::sample::Index>, most in 0usize..12) {
            let mut ends: Vec<usize> = cuts.iter().map(|cut| cut.index(body.len() + 1)).chain([0, body.len()]).collect();
            ends.sort_unstable();
            let pieces: Vec<&[u8]> = ends.windows(2).map(|ends| &body[ends[0]..ends[1]]).collect();
            prop_assert_eq!(cut(&pieces, most), split(&body, most));
        }

        #[test]
        fn any_bytes_are_texts_or_problems_one_a_line(body in bytes()) {
            let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
            let limits = Limits { text_bytes: 1, ..Limits::default() };
            let found = runtime.block_on(read_all(vec![body.clone()], &limits));
            let lines = body.split(|byte| *byte == b'\n').filter(|line| !line.trim_ascii().is_empty()).count();
            prop_assert_eq!(found.len(), lines);
            prop_assert!(found.iter().all(Result::is_ok));
        }

        #[test]
        fn any_text_and_id_come_as_they_were_sent(texts: Vec<String>, piece in 1usize..40) {
            let line = |(id, text): (usize, &String)| format!("{}\n", serde_json::json!({"id": id, "text": text}));
            let body: String = texts.iter().enumerate().map(line).collect();
            let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
            let pieces = body.as_bytes().chunks(piece).map(<[u8]>::to_vec).collect();
            let found = runtime.block_on(read_all(pieces, &Limits::default()));
            prop_assert_eq!(found.len(), texts.len());
            for (index, (entry, text)) in found.iter().zip(&texts).enumerate() {
                let entry = entry.as_ref().expect("no error of the stream");
                prop_assert_eq!(entry.tag.as_ref(), Some(&Value::from(index)));
                prop_assert_eq!(entry.text.as_ref().ok(), Some(text));
            }
        }
    }
}
