//! The calls.

use std::io::Write;
use std::net::SocketAddr;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use hyper::client::conn::http2::SendRequest;
use hyper::http::HeaderMap;
use hyper::http::uri::PathAndQuery;
use prost::Message;
use tokio::runtime::{Builder, Runtime};
use tonic::body::Body;
use tonic::client::Grpc;
use tonic::{Code, Request, Response};
use tonic_prost::ProstCodec;

use super::connection::{Connection, Credentials, Shown};
use super::error::Error;
use super::messages::{
    Alarm, AlarmRequest, AlarmResponse, AuthStatusResponse, Compare, DeleteRangeRequest, Empty, KeyValue,
    Member, MemberAddRequest, MemberAddResponse, MemberIdRequest, MemberListRequest, MembersResponse,
    Permission, PutRequest, RangeRequest, RangeResponse, RequestOp, ResponseHeader, RoleAddRequest,
    RoleGrantPermissionRequest, SnapshotResponse, Status, TxnRequest, TxnResponse, UserAddOptions,
    UserAddRequest, UserGrantRoleRequest,
};
use crate::base::terminal::said;
use crate::base::width::to_u64;
use crate::base::{Size, limits};

/// For a part of a snapshot, of 32 KiB; and how often it is looked whether they come as fast as [`SLOWEST`].
const PART: Duration = Duration::from_secs(30);
/// Bytes a second that a snapshot comes with, at least.
const SLOWEST: u64 = 256;
/// Of a right.
const READ_AND_WRITE: i32 = 2;
/// Every key: from the first on.
const ALL: &[u8] = b"\0";
/// Of a comparison: when a key was changed last.
const CHANGED_AT: i32 = 2;

/// What a transaction does to one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// Writes it.
    Put {
        /// Its name.
        key: String,
        /// What it holds from then on.
        value: Vec<u8>,
    },
    /// Deletes it, if it is there.
    Delete {
        /// Its name.
        key: String,
    },
}

/// A connection to one member.
pub struct Client {
    runtime: Runtime,
    grpc: Grpc<Connection>,
    endpoint: SocketAddr,
    patience: Duration,
    sender: SendRequest<Body>,
    end: std::sync::Arc<Mutex<Option<Error>>>,
    shown: Shown,
}

/// What was learnt about a member by asking how it is.
#[derive(Clone, Debug, PartialEq)]
pub struct Known {
    /// How it is.
    pub status: Status,
    /// Its clock before ours, as far as whole seconds and the way tell; nothing where it does not say.
    pub clock_ahead_seconds: Option<f64>,
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Client({})", self.endpoint)
    }
}

impl Client {
    /// Connects to the member that answers clients at `endpoint`. This, and each call, ends within `patience`.
    ///
    /// # Errors
    /// What the network, or either side's certificate, lacks.
    pub fn connect(
        endpoint: SocketAddr,
        credentials: &Credentials,
        patience: Duration,
    ) -> Result<Self, Error> {
        let runtime = Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| Error::Broken { endpoint, cause: error.to_string() })?;
        let opened = runtime.block_on(async {
            tokio::time::timeout(patience, Connection::open(endpoint, credentials)).await
        });
        let mut connection = opened.map_err(|_| Error::Late { endpoint, after: patience })??;
        let (sender, end) = (connection.sender(), connection.end());
        let shown = std::mem::take(&mut connection.shown);
        let origin = format!("https://{endpoint}").parse().expect("an address makes a URI");
        let grpc = Grpc::with_origin(connection, origin).max_decoding_message_size(limits::ETCD_ANSWER);
        Ok(Self { runtime, grpc, endpoint, patience, sender, end, shown })
    }

    /// Who is asked.
    pub fn endpoint(&self) -> SocketAddr {
        self.endpoint
    }

    /// What the member has shown of itself.
    pub fn shown(&self) -> &Shown {
        &self.shown
    }

    /// How this member is. It answers without a leader, and as a learner.
    ///
    /// # Errors
    /// As [`Error`] has them.
    pub fn status(&mut self) -> Result<Known, Error> {
        let mut status: Status = self.call("/etcdserverpb.Maintenance/Status", Empty {})?;
        status.version = word(&status.version);
        Ok(Known { status, clock_ahead_seconds: self.clock_ahead() })
    }

    /// gRPC tells no time; etcd's HTTP does, on the same connection.
    fn clock_ahead(&mut self) -> Option<f64> {
        let url = format!("https://{}/version", self.endpoint);
        let request = hyper::Request::get(url).body(Body::empty()).ok()?;
        let (sender, patience) = (&mut self.sender, self.patience);
        let asked = SystemTime::now();
        let answer = self.runtime.block_on(async {
            let answer = async {
                sender.ready().await?;
                sender.send_request(request).await
            };
            tokio::time::timeout(patience, answer).await
        });
        clock_ahead(answer.ok()?.ok()?.headers(), asked, SystemTime::now())
    }

    /// Goes once through the log: it answers only where a leader and more than half of the members with a vote do.
    ///
    /// # Errors
    /// As [`Error`] has them; a client that may not read all keys is refused after the way through the log.
    pub fn agree(&mut self) -> Result<ResponseHeader, Error> {
        let request = RangeRequest { key: b"health".to_vec(), limit: 1, ..RangeRequest::default() };
        let answer: RangeResponse = self.call("/etcdserverpb.KV/Range", request)?;
        Ok(answer.header.unwrap_or_default())
    }

    /// The number of keys, and the revision at which it was so.
    ///
    /// # Errors
    /// As [`Error`] has them.
    pub fn count(&mut self) -> Result<(i64, i64), Error> {
        let request = RangeRequest {
            key: ALL.to_vec(),
            range_end: ALL.to_vec(),
            count_only: true,
            ..RangeRequest::default()
        };
        let answer: RangeResponse = self.call("/etcdserverpb.KV/Range", request)?;
        Ok((answer.count, answer.header.unwrap_or_default().revision))
    }

    /// The key `key`, as a majority has it; none where it is not there.
    ///
    /// # Errors
    /// As [`Error`] has them.
    pub fn get(&mut self, key: &str) -> Result<Option<KeyValue>, Error> {
        let request = RangeRequest { key: key.into(), ..RangeRequest::default() };
        let answer: RangeResponse = self.call("/etcdserverpb.KV/Range", request)?;
        Ok(answer.keys.into_iter().next())
    }

    /// The first `most` keys that begin with `prefix`, in their order and without what they hold.
    ///
    /// # Errors
    /// As [`Error`] has them.
    pub fn keys_below(&mut self, prefix: &str, most: i64) -> Result<Vec<KeyValue>, Error> {
        let request = RangeRequest {
            key: prefix.into(),
            range_end: after(prefix.as_bytes()),
            limit: most,
            keys_only: true,
            ..RangeRequest::default()
        };
        let answer: RangeResponse = self.call("/etcdserverpb.KV/Range", request)?;
        Ok(answer.keys)
    }

    /// Makes all `changes`, or none where the key `when.0` was not changed last at the revision `when.1`; 0 stands for a key
    /// that is not there. Says whether it was done.
    ///
    /// # Errors
    /// As [`Error`] has them.
    pub fn change(&mut self, when: Option<(&str, i64)>, changes: Vec<Change>) -> Result<bool, Error> {
        let compare = when.map(|(key, at)| Compare {
            target: CHANGED_AT,
            key: key.into(),
            changed_at: Some(at),
            ..Compare::default()
        });
        let success = changes.into_iter().map(|change| match change {
            Change::Put { key, value } => {
                RequestOp { put: Some(PutRequest { key: key.into(), value }), delete: None }
            }
            Change::Delete { key } => {
                RequestOp { put: None, delete: Some(DeleteRangeRequest { key: key.into() }) }
            }
        });
        let request = TxnRequest { compare: compare.into_iter().collect(), success: success.collect() };
        let answer: TxnResponse = self.call("/etcdserverpb.KV/Txn", request)?;
        Ok(answer.succeeded)
    }

    /// All members, as this one knows them, which may be behind the others. A learner does not tell.
    ///
    /// # Errors
    /// As [`Error`] has them.
    pub fn members(&mut self) -> Result<Vec<Member>, Error> {
        let request = MemberListRequest { linearizable: false };
        let answer: MembersResponse = self.call("/etcdserverpb.Cluster/MemberList", request)?;
        listed(self.endpoint, answer.members)
    }

    /// Takes in a learner that will answer other members at `peer_url`.
    ///
    /// # Errors
    /// As [`Error`] has them.
    pub fn add_learner(&mut self, peer_url: &str) -> Result<Member, Error> {
        let request = MemberAddRequest { peer_urls: vec![peer_url.to_owned()], is_learner: true };
        let answer: MemberAddResponse = self.call("/etcdserverpb.Cluster/MemberAdd", request)?;
        Ok(answer.member.unwrap_or_default())
    }

    /// Removes the member with the number `id`.
    ///
    /// # Errors
    /// As [`Error`] has them.
    pub fn remove(&mut self, id: u64) -> Result<(), Error> {
        let _: MembersResponse = self.call("/etcdserverpb.Cluster/MemberRemove", MemberIdRequest { id })?;
        Ok(())
    }

    /// Gives a vote to the learner with the number `id`. etcd refuses as long as it has not caught up.
    ///
    /// # Errors
    /// As [`Error`] has them.
    pub fn promote(&mut self, id: u64) -> Result<(), Error> {
        let _: MembersResponse = self.call("/etcdserverpb.Cluster/MemberPromote", MemberIdRequest { id })?;
        Ok(())
    }

    /// Makes the member with the number `id` the leader. Only the leader can be asked.
    ///
    /// # Errors
    /// As [`Error`] has them.
    pub fn lead(&mut self, id: u64) -> Result<(), Error> {
        let _: Empty = self.call("/etcdserverpb.Maintenance/MoveLeader", MemberIdRequest { id })?;
        Ok(())
    }

    /// All alarms. A learner does not tell.
    ///
    /// # Errors
    /// As [`Error`] has them.
    pub fn alarms(&mut self) -> Result<Vec<Alarm>, Error> {
        let answer: AlarmResponse = self.call("/etcdserverpb.Maintenance/Alarm", AlarmRequest::default())?;
        match answer.alarms.len() <= limits::ETCD_MEMBERS {
            true => Ok(answer.alarms),
            false => Err(many(self.endpoint, "alarms", answer.alarms.len())),
        }
    }

    /// Whether etcd asks for rights.
    ///
    /// # Errors
    /// As [`Error`] has them.
    pub fn asks_for_rights(&mut self) -> Result<bool, Error> {
        let answer: AuthStatusResponse = self.call("/etcdserverpb.Auth/AuthStatus", Empty {})?;
        Ok(answer.enabled)
    }

    /// From now on etcd asks for rights. It wants a user `root` that has the role `root`.
    ///
    /// # Errors
    /// As [`Error`] has them.
    pub fn ask_for_rights(&mut self) -> Result<(), Error> {
        let _: Empty = self.call("/etcdserverpb.Auth/AuthEnable", Empty {})?;
        Ok(())
    }

    /// Makes a user without a password, known by the name in its certificate.
    ///
    /// # Errors
    /// As [`Error`] has them: that it is there is one.
    pub fn add_user(&mut self, name: &str) -> Result<(), Error> {
        let options = Some(UserAddOptions { no_password: true });
        let request = UserAddRequest { name: name.to_owned(), options };
        let _: Empty = self.call("/etcdserverpb.Auth/UserAdd", request)?;
        Ok(())
    }

    /// Makes a role.
    ///
    /// # Errors
    /// As [`Error`] has them: that it is there is one.
    pub fn add_role(&mut self, name: &str) -> Result<(), Error> {
        let _: Empty = self.call("/etcdserverpb.Auth/RoleAdd", RoleAddRequest { name: name.to_owned() })?;
        Ok(())
    }

    /// Gives a role to a user.
    ///
    /// # Errors
    /// As [`Error`] has them.
    pub fn grant_role(&mut self, user: &str, role: &str) -> Result<(), Error> {
        let request = UserGrantRoleRequest { user: user.to_owned(), role: role.to_owned() };
        let _: Empty = self.call("/etcdserverpb.Auth/UserGrantRole", request)?;
        Ok(())
    }

    /// Lets a role read and write all keys that begin with `prefix`.
    ///
    /// # Errors
    /// As [`Error`] has them.
    pub fn grant_below(&mut self, role: &str, prefix: &[u8]) -> Result<(), Error> {
        let range_end = after(prefix);
        let permission = Some(Permission { kind: READ_AND_WRITE, key: prefix.to_vec(), range_end });
        let request = RoleGrantPermissionRequest { name: role.to_owned(), permission };
        let _: Empty = self.call("/etcdserverpb.Auth/RoleGrantPermission", request)?;
        Ok(())
    }

    /// Writes a snapshot of this member's database to `target`, with its SHA-256 at its end, as `etcdctl snapshot save`
    /// has it. `advance` hears of bytes that came and bytes that are left.
    ///
    /// # Errors
    /// As [`Error`] has them; the inner one is of `target`.
    pub fn snapshot(
        &mut self,
        target: &mut dyn Write,
        advance: &mut dyn FnMut(u64, u64),
    ) -> Result<std::io::Result<u64>, Error> {
        let mut stream = self.open_snapshot()?;
        let mut total = 0;
        let (mut since, mut counted) = (Instant::now(), 0);
        loop {
            let next = self.runtime.block_on(async { tokio::time::timeout(PART, stream.message()).await });
            let part: Option<SnapshotResponse> = next
                .map_err(|_| Error::Late { endpoint: self.endpoint, after: PART })?
                .map_err(|status| self.failed(&status))?;
            let Some(part) = part else { return Ok(Ok(total)) };
            if let Err(error) = target.write_all(&part.blob) {
                return Ok(Err(error));
            }
            let len = to_u64(part.blob.len());
            total += len;
            counted += len;
            advance(len, part.remaining_bytes);
            if total > limits::SNAPSHOT {
                let most = Size(limits::SNAPSHOT).human();
                let cause = format!("its snapshot has more than the {most} that are read of one");
                return Err(Error::Broken { endpoint: self.endpoint, cause });
            }
            if since.elapsed() >= PART {
                if counted < SLOWEST * since.elapsed().as_secs() {
                    let cause = format!("its snapshot comes slower than {SLOWEST} B a second");
                    return Err(Error::Broken { endpoint: self.endpoint, cause });
                }
                (since, counted) = (Instant::now(), 0);
            }
        }
    }

    fn open_snapshot(&mut self) -> Result<tonic::Streaming<SnapshotResponse>, Error> {
        let path = PathAndQuery::from_static("/etcdserverpb.Maintenance/Snapshot");
        let (grpc, patience) = (&mut self.grpc, self.patience);
        let opened = self.runtime.block_on(async {
            tokio::time::timeout(patience, async {
                grpc.ready().await.map_err(|error| tonic::Status::from_error(Box::new(error)))?;
                grpc.server_streaming(Request::new(Empty {}), path, ProstCodec::default()).await
            })
            .await
        });
        let opened = opened.map_err(|_| Error::Late { endpoint: self.endpoint, after: patience })?;
        opened.map(Response::into_inner).map_err(|status| self.failed(&status))
    }

    fn call<M, A>(&mut self, path: &'static str, message: M) -> Result<A, Error>
    where
        M: Message + Default + 'static,
        A: Message + Default + 'static,
    {
        let path = PathAndQuery::from_static(path);
        let (grpc, patience) = (&mut self.grpc, self.patience);
        let mut request = Request::new(message);
        // etcd gives up as well.
        request.set_timeout(patience);
        let answer = self.runtime.block_on(async {
            tokio::time::timeout(patience, async {
                grpc.ready().await.map_err(|error| tonic::Status::from_error(Box::new(error)))?;
                grpc.unary(request, path, ProstCodec::<M, A>::default()).await
            })
            .await
        });
        let answer = answer.map_err(|_| Error::Late { endpoint: self.endpoint, after: patience })?;
        answer.map(Response::into_inner).map_err(|status| self.failed(&status))
    }

    fn failed(&self, status: &tonic::Status) -> Error {
        let endpoint = self.endpoint;
        // An error of this side has a source; one that etcd has sent has none.
        let Some(source) = std::error::Error::source(status) else {
            return match status.code() {
                Code::DeadlineExceeded => Error::Late { endpoint, after: self.patience },
                // In the words of the library, which gives such an error no source.
                Code::OutOfRange if status.message().contains("decoded message length too large") => {
                    let most = Size(to_u64(limits::ETCD_ANSWER)).human();
                    Error::Broken {
                        endpoint,
                        cause: format!("an answer has more than the {most} that are read"),
                    }
                }
                code => Error::Refused { endpoint, code, message: word(status.message()) },
            };
        };
        // The task that carries the connection may not have been at its end yet.
        self.runtime.block_on(tokio::task::yield_now());
        let ended = self.end.lock().unwrap_or_else(PoisonError::into_inner).clone();
        ended
            .or_else(|| super::error::of_certificates(endpoint, source))
            .unwrap_or_else(|| Error::Broken { endpoint, cause: crate::base::Chain(source).to_string() })
    }
}

/// Words of etcd's, or of whoever answers in its place.
fn word(text: &str) -> String {
    said(text, limits::ETCD_WORD)
}

/// The members that `endpoint` lists, in words that can be shown.
fn listed(endpoint: SocketAddr, mut members: Vec<Member>) -> Result<Vec<Member>, Error> {
    let addresses: usize = members.iter().map(|one| one.peer_urls.len().max(one.client_urls.len())).sum();
    let count = members.len().max(addresses);
    if count > limits::ETCD_MEMBERS {
        return Err(many(endpoint, "members and addresses", count));
    }
    for member in &mut members {
        let urls = member.peer_urls.iter_mut().chain(&mut member.client_urls);
        urls.chain([&mut member.name]).for_each(|text| *text = word(text));
    }
    Ok(members)
}

fn many(endpoint: SocketAddr, what: &str, count: usize) -> Error {
    let cause = format!("it tells of {count} {what}, and at most {} are read", limits::ETCD_MEMBERS);
    Error::Broken { endpoint, cause }
}

/// The first key that does not begin with `prefix`: none of ours ends with the last byte there is.
fn after(prefix: &[u8]) -> Vec<u8> {
    let mut end = prefix.to_vec();
    if let Some(last) = end.last_mut() {
        *last += 1;
    }
    end
}

/// By how much the clock of who answered is before ours. It tells whole seconds, cut off, of a moment between ours.
fn clock_ahead(headers: &HeaderMap, asked: SystemTime, answered: SystemTime) -> Option<f64> {
    let said = headers.get("date")?.to_str().ok()?;
    let said = jiff::fmt::rfc2822::parse(said).ok()?.timestamp().as_second();
    let seconds = |time: SystemTime| {
        time.duration_since(SystemTime::UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64())
    };
    let (first, last) = (seconds(asked), seconds(answered));
    #[expect(clippy::cast_precision_loss, reason = "seconds since 1970 are exact in 53 bits")]
    let said = said as f64;
    // Between the two lies what is possible without any difference.
    Some(if said + 1.0 < first {
        said + 1.0 - first
    } else if said > last {
        said - last
    } else {
        0.0
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_member_says_of_others_is_bounded_and_in_one_line() {
        let endpoint = ([10, 0, 0, 1], 2379).into();
        let member = |name: &str, urls: usize| Member {
            id: 7,
            name: name.to_owned(),
            peer_urls: vec!["https://10.0.0.2:2380\nnext: reboot".to_owned(); urls],
            client_urls: vec!["x\u{202e}y".to_owned()],
            is_learner: false,
        };
        let few = listed(endpoint, vec![member("a", 1), member("b\nerror: \u{1b}[2J", 1)]).unwrap();
        assert_eq!((few[0].name.as_str(), few[1].name.as_str()), ("a", r"b\u{a}error: \u{1b}[2J"));
        assert_eq!(few[0].peer_urls, [r"https://10.0.0.2:2380\u{a}next: reboot"]);
        assert_eq!(few[0].client_urls, [r"x\u{202e}y"]);
        for (members, count) in [(vec![member("a", 1); 60_000], 60_000), (vec![member("a", 65)], 65)] {
            let error = listed(endpoint, members).unwrap_err();
            let said = format!(
                "talking to 10.0.0.1:2379: it tells of {count} members and addresses, and at most 64 are read"
            );
            assert_eq!(error.to_string(), said);
        }
        assert_eq!(word(&"x".repeat(5000)).chars().count(), limits::ETCD_WORD + 1);
    }

    #[test]
    fn a_clock_differs_by_what_the_way_and_whole_seconds_do_not_explain() {
        let mut headers = HeaderMap::new();
        let at = |seconds: f64| SystemTime::UNIX_EPOCH + Duration::from_secs_f64(seconds);
        assert_eq!(clock_ahead(&headers, at(0.0), at(1.0)), None);
        headers.insert("date", "Fri, 15 Jan 2027 08:00:00 GMT".parse().unwrap());
        let said = 1_800_000_000.0;
        for (asked, answered, ahead) in
            [(0.2, 0.9, 0.0), (-0.5, 0.1, 0.0), (0.9, 3.0, 0.0), (-30.5, -30.0, 30.0), (11.0, 12.0, -10.0)]
        {
            assert_eq!(clock_ahead(&headers, at(said + asked), at(said + answered)), Some(ahead));
        }
    }
}
