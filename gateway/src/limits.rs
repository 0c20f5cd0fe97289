//! What one caller may ask for. Every limit has an answer of its own when it is passed, and none of them ends a process.

use std::time::Duration;

use crate::{errors::ProblemCode, problem::Problem};

/// The limits of the gateway, for REST and gRPC alike.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Texts in one call (`too-many-texts`).
    pub texts: usize,
    /// Bytes of UTF-8 in one text (`text-too-long`).
    pub text_bytes: usize,
    /// Bytes in one body, or one gRPC message (`body-too-large`; gRPC `OUT_OF_RANGE`).
    pub body_bytes: usize,
    /// How long a body may take to arrive (`body-timeout`).
    pub body_timeout: Duration,
    /// Bytes in one post that is sent to `/v1/posts` (`too-large`).
    pub post_bytes: usize,
    /// Bytes in the head of a request: its line and headers (431; gRPC ends the stream). At most 100 headers in HTTP/1.
    pub head_bytes: usize,
    /// How long a connection has to send the next request's head, and so how long it may be idle (it is closed).
    pub head_timeout: Duration,
    /// How long a TLS handshake may take (the connection is closed).
    pub handshake: Duration,
    /// How long a peer may leave an answer unread (the connection is closed).
    pub stall: Duration,
    /// Connections of one door at one time; more wait in the kernel's queue.
    pub connections: usize,
    /// Scoring calls that are read, queued or scored at one time, over both doors (`queue-full`). Together with
    /// `body_bytes` it bounds the memory that requests can take.
    pub calls_in_flight: usize,
    /// Bytes in one record batch of an Arrow stream (`too-large`).
    pub arrow_batch_bytes: usize,
    /// Bytes in the whole body of an Arrow call, or of a stream of lines (`body-too-large`).
    pub long_body_bytes: u64,
    /// Arrow calls at one time (`queue-full`).
    pub arrow_calls: usize,
    /// Queries of one kind at one time (`queue-full`): a store that hangs holds up those alone that it answers.
    pub query_calls: usize,
    /// Streams of texts at one time, over both doors (`queue-full`).
    pub streams: usize,
    /// Texts of one stream that are in flight: read, and their answers not yet taken. In the interactive lane,
    /// `interactive_texts` of them.
    pub stream_texts: usize,
    /// Bytes of these texts beyond which no further one is read.
    pub stream_text_bytes: usize,
    /// Bytes of answers of a REST stream that may wait for their reader, on disk but for the first of them. Beyond them
    /// nothing more is read.
    pub stream_answer_bytes: u64,
    /// The deadline of an Arrow call or a stream that names none, and the furthest that it can ask for.
    pub longest_bulk_timeout: Duration,
    /// Calls of up to this many texts go to the interactive lane, larger ones to the bulk lane.
    pub interactive_texts: usize,
    /// The deadline of a call that names none (`deadline-exceeded`).
    pub timeout: Duration,
    /// The furthest deadline that a call can ask for; a greater wish is shortened to it.
    pub longest_timeout: Duration,
    /// Readers of `/v1/live` at one time (`queue-full`).
    pub live_readers: usize,
    /// How long a drain waits for running requests.
    pub drain: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            texts: 1024,
            text_bytes: 64 * 1024,
            body_bytes: 8 * 1024 * 1024,
            body_timeout: Duration::from_secs(10),
            post_bytes: 1 << 20,
            head_bytes: 32 * 1024,
            head_timeout: Duration::from_secs(75),
            handshake: Duration::from_secs(10),
            stall: Duration::from_secs(30),
            connections: 10_000,
            calls_in_flight: 128,
            arrow_batch_bytes: 64 << 20,
            long_body_bytes: 4 << 30,
            arrow_calls: 4,
            query_calls: 8,
            streams: 32,
            stream_texts: 1024,
            stream_text_bytes: 4 << 20,
            stream_answer_bytes: 256 << 20,
            longest_bulk_timeout: Duration::from_secs(3600),
            interactive_texts: 32,
            timeout: Duration::from_secs(30),
            longest_timeout: Duration::from_secs(300),
            live_readers: 256,
            drain: Duration::from_secs(10),
        }
    }
}

impl Limits {
    /// Whether a call may hold this many texts.
    ///
    /// # Errors
    /// `empty-list` or `too-many-texts`.
    pub fn check_count(&self, texts: usize) -> Result<(), Problem> {
        if texts == 0 {
            return Err(Problem::new(ProblemCode::EmptyList, "the list is empty; send at least one text"));
        }
        if texts > self.texts {
            let detail = format!("{texts} texts in one call, at most {} are allowed; send several calls", self.texts);
            return Err(Problem::new(ProblemCode::TooManyTexts, detail));
        }
        Ok(())
    }

    /// Whether a text can be scored.
    ///
    /// # Errors
    /// `empty-text` or `text-too-long`.
    pub fn check_text(&self, text: &str) -> Result<(), Problem> {
        if text.len() > self.text_bytes {
            let detail =
                format!("the text has {} bytes, at most {} are allowed; split it", text.len(), self.text_bytes);
            return Err(Problem::new(ProblemCode::TextTooLong, detail));
        }
        if text.trim().is_empty() {
            return Err(Problem::new(ProblemCode::EmptyText, "the text is empty or only white space"));
        }
        Ok(())
    }

    /// The time that a call has, given what it asked for.
    pub fn granted(&self, asked: Option<Duration>) -> Duration {
        asked.unwrap_or(self.timeout).min(self.longest_timeout)
    }

    /// The time that an Arrow call or a stream has, given what it asked for.
    pub fn granted_long(&self, asked: Option<Duration>) -> Duration {
        asked.unwrap_or(self.longest_bulk_timeout).min(self.longest_bulk_timeout)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_limit_holds_at_its_edge() {
        let limits = Limits { texts: 2, text_bytes: 4, ..Limits::default() };
        let code = |result: Result<(), Problem>| result.err().map(|problem| problem.code());
        for (count, wanted) in
            [(0, Some(ProblemCode::EmptyList)), (1, None), (2, None), (3, Some(ProblemCode::TooManyTexts))]
        {
            assert_eq!(code(limits.check_count(count)), wanted, "{count} texts");
        }
        let texts = [
            ("", Some(ProblemCode::EmptyText)),
            (" \n\t", Some(ProblemCode::EmptyText)),
            ("abcd", None),
            ("äö", None),
            ("äöü", Some(ProblemCode::TextTooLong)),
            ("     ", Some(ProblemCode::TextTooLong)),
        ];
        for (text, wanted) in texts {
            assert_eq!(code(limits.check_text(text)), wanted, "{text:?}");
        }
    }

    #[test]
    fn a_wish_for_more_time_is_shortened() {
        let limits =
            Limits { timeout: Duration::from_secs(3), longest_timeout: Duration::from_secs(9), ..Limits::default() };
        let cases = [(None, 3), (Some(1), 1), (Some(9), 9), (Some(10), 9)];
        for (asked, granted) in cases {
            assert_eq!(limits.granted(asked.map(Duration::from_secs)), Duration::from_secs(granted));
        }
    }
}
