// Derived from index.js by `make docs`, for pages without modules:
//
//     <script src="client.js"></script>
//     <script>const client = new NotificationClient("wss://ws.example.com/", {uuid: "alice"});</script>
"use strict";

{
const SUBPROTOCOL = "nc.v1";
const TIMEOUT_MS = 10_000;
// Full jitter: after a restart all clients come back, and must not come at the same moment.
const BACKOFF_BASE_S = 0.5, BACKOFF_CAP_S = 30;
// A connection that lasted this long was a good one. A shorter one may have been accepted only to be closed again.
const STABLE_S = 30;
// A silent service is asked for a sign of life after one ping interval, and given up after so many.
const SILENT_PING_INTERVALS = 1.5;
// How much of a token's life passes before a newer one is shown.
const REFRESH_AT = 0.8;
// The longest wait that a service is believed: by a slip of its configuration clients would stay away for days.
const LONGEST_S = 3600;
// What is longer, setTimeout takes for nothing.
const LONGEST_DELAY_MS = 2 ** 31 - 1;
// How often the address may be in use after a lost connection, which the service takes for alive until it has looked.
const TRIES_IN_USE = 5;
// With these a service closes that does not take what it was sent: to send it again would end in the same way.
const NOT_TAKEN = [1003, 1007, 1009];
// As the service has them.
const MAX_ASKED_FOR = 100, LIMIT = 106, BAD_REQUEST = 107, TOKEN_EXPIRED = 109, IN_USE = 113, QUEUE_FULL = 115;

/** The answer is no. `code` is one of docs/protocol.md; `temporary`: the same may succeed later. */
class RequestError extends Error {
  /** @param {number} code @param {string} reason @param {boolean} temporary */
  constructor(code, reason, temporary) {
    super(`${reason} (error ${code})`);
    this.name = "RequestError";
    this.code = code;
    this.reason = reason;
    this.temporary = temporary;
  }
}

/** The client has no connection and will not come back; the message says why. */
class GoneError extends Error {
  name = "GoneError";
}

/**
 * Why there is no connection, or soon none, and what follows: nothing, if it would be lost again (`final`); or a next
 * try, after `toldS`, 0 for at once, or after the back-off. `isNotTaken`: what was sent last is the cause.
 * @typedef {{reason: string, final?: boolean, toldS?: number, isNotTaken?: boolean}} Lost
 */

/** The three ranges of service/core/close_codes.py. @param {number} code @param {string} reason @returns {Lost} */
const closed = (code, reason) => ({
  reason: `closed with ${code} ${reason}`.trim(),
  final: code >= 4000 && code < 4100,
  toldS: code >= 4200 && code < 4300 ? 0 : undefined,
  isNotTaken: NOT_TAKEN.includes(code),
});

/** How far a client has got in its mailbox: everything up to `after` was handled. @typedef {{epoch: string, after: number}} Position */

/** What has come from the mailbox, and where the position is kept. */
class Mailbox {
  #keeper;

  constructor(keeper) {
    this.#keeper = keeper;
    this.position = keeper.load?.() ?? null;
  }

  wanted() {
    return this.position ?? {};
  }

  /** Take the answer to hello; the result is what is missing, and what is to be confirmed at once. */
  opened({epoch, after, last, whole, lost_to: lostTo}) {
    if (epoch !== this.position?.epoch || after > this.position.after) this.#save({epoch, after});
    if (whole) return {};
    const missing = `messages may be missing up to offset ${lostTo}`;
    if (last > after) return {missing}; // the confirmation of what follows is one of the loss as well
    this.#save({epoch, after: lostTo});
    return {missing, lostTo};
  }

  /** Whether an offset is new. */
  isNew(offset) {
    return this.position !== null && offset > this.position.after;
  }

  handled(offset) {
    this.#save({epoch: this.position.epoch, after: offset});
  }

  #save(position) {
    this.position = position;
    this.#keeper.save?.(position);
  }
}

/** A message that the service has accepted, for `online` recipients, or has `stored` in the recipient's mailbox. */
class Sent {
  /** By what a receipt names it that comes to a later run of the page. @type {number | string} */
  id;
  online = 0;
  stored = false;
  /** By recipient, "delivered" or "lost", as far as it is known. @type {Map<string, "delivered" | "lost">} */
  outcomes = new Map();
  #receipts = NaN; // until the service has said how many there will be, nothing is complete
  #noted = 0;
  #delivered = 0;
  #link = null; // on which it was sent last
  #isSettled = false;
  #resolve;

  constructor(id) {
    this.id = id;
    /**
     * With `ack: "delivered"`: "delivered" when all recipients have confirmed, and else "lost". That means that it may
     * have arrived or not: a recipient has gone, or cannot confirm, or we were disconnected.
     * @type {Promise<"delivered" | "lost">}
     */
    this.outcome = new Promise((resolve) => { this.#resolve = resolve; });
  }

  /** It is sent on a connection: what recipients have said of an earlier copy no longer counts. */
  begin(link) {
    this.#link = link;
    if (this.#isSettled) return;
    this.#noted = this.#delivered = 0;
    this.outcomes.clear();
  }

  accept({online, receipts = 0, stored = false}) {
    this.online = online;
    this.stored = stored;
    this.#receipts = receipts;
    this.#look();
  }

  /** Each counts: two members of a group may have one name. */
  note(link, recipient, outcome) {
    if (link !== this.#link) return;
    this.outcomes.set(recipient, outcome);
    this.#noted++;
    if (outcome === "delivered") this.#delivered++;
    this.#look();
  }

  /** The receipt has come from the mailbox: it is about any copy, and no other follows. */
  conclude(recipient, outcome) {
    this.outcomes.set(recipient, outcome);
    this.#settle(outcome);
  }

  /** Whether no receipt is to come. */
  get isComplete() {
    return this.#isSettled;
  }

  /** A connection has ended, or there is none any more: no receipt comes there. */
  giveUp(link = this.#link) {
    if (link === this.#link && !Number.isNaN(this.#receipts)) this.#settle(this.#outcome); // or else it is sent again
  }

  get #outcome() {
    return this.#delivered === (this.stored ? 1 : this.online) ? "delivered" : "lost";
  }

  #look() {
    if (this.#noted >= this.#receipts) this.#settle(this.#outcome);
  }

  #settle(outcome) {
    this.#isSettled = true;
    this.#resolve(outcome);
  }
}

/** One connection, from its handshake to its end. `told` gets every frame, `lost` the reason of its end, once. */
class Link {
  isOpen = true;
  receipts = new Map();
  timers = new Set();
  #waiting;

  constructor(url, told, lost) {
    this.lost = (reason) => {
      if (!this.isOpen) return;
      this.isOpen = false;
      this.timers.forEach(clearTimeout);
      this.socket.onmessage = this.socket.onclose = null;
      this.socket.close();
      this.receipts.forEach((sent) => sent.giveUp(this));
      lost(reason);
    };
    this.socket = new WebSocket(url, [SUBPROTOCOL]);
    this.socket.onclose = ({code, reason}) => this.lost(closed(code, reason));
    // Node 22 tells no more than this of a handshake that fails; all others say the same in a close event that follows.
    this.socket.onerror = () => { if (!this.wasOpen) this.lost(closed(1006, "")); };
    this.socket.onmessage = ({data}) => {
      this.#listen();
      try {
        told(JSON.parse(data));
      } catch (error) {
        this.lost({reason: `not a frame of ${SUBPROTOCOL}: ${error.message}`});
      }
    };
    this.#waiting = this.after(TIMEOUT_MS, () => this.lost({reason: "timed out"}));
  }

  /** From now on a silent service is asked for a sign of life, and given up if it gives none. */
  watch(pingMs) {
    this.pingMs = pingMs;
    this.#listen();
  }

  #listen() {
    if (this.pingMs === undefined) return;
    clearTimeout(this.#waiting);
    this.timers.delete(this.#waiting);
    this.#waiting = this.after(this.pingMs, () => {
      this.say({type: "ping"});
      const rest = this.pingMs * (SILENT_PING_INTERVALS - 1);
      this.#waiting = this.after(rest, () => this.lost({reason: "silent for too long"}));
    });
  }

  after(ms, act) {
    const timer = setTimeout(() => { this.timers.delete(timer); act(); }, Math.min(ms, LONGEST_DELAY_MS));
    this.timers.add(timer);
    return timer;
  }

  say(frame) {
    this.sayText(JSON.stringify(frame));
  }

  sayText(text) {
    // What a lost connection does not take is kept by the client, or no longer matters.
    if (this.socket.readyState === WebSocket.OPEN) this.socket.send(text);
  }

  forgetIfComplete(id) {
    if (this.receipts.get(id)?.isComplete) this.receipts.delete(id);
  }

  /** End it in order: what is still on its way is heard. */
  close() {
    this.socket.close();
  }

  /** End the connection that this one has come in place of. */
  endPrevious() {
    this.previous?.close();
    this.previous = undefined;
  }
}

/**
 * A client that stays connected. What had no answer when the connection was lost is sent again: a recipient may get it
 * twice, but not never. Its events have these details:
 *
 * - `message` {sender_uuid, message, recipient_uuid?, group?}; confirmed to its sender when the listeners have returned
 * - `connected` {uuid}: the service has taken the client in under this address
 * - `disconnected` {reason, waitS}: the next try is in so many seconds
 * - `gone` {reason}: there is no next try, and every method fails with a `GoneError`
 * - `presence` {uuid, online}: a watched address has got an owner, or lost it
 * - `missing` {reason}: the mailbox does not have everything any more that was kept for the client
 * - `receipt` {id, uuid, outcome}: what became of a message that an earlier run of the page has sent to `uuid`
 * - `refused` {reason}: after a reconnect the service has refused a group or a watch that it had granted before
 */
class NotificationClient extends EventTarget {
  /** The address; known after `open`. @type {string | undefined} */
  uuid;
  #isNamed; #url; #token; #maxKept; #secondMs; #random;
  #ceilingS = BACKOFF_BASE_S;
  #ids = 0;
  #requests = new Map();
  #groups = new Set();
  #watched = new Map();
  #link = null; // which has been greeted, and is not being replaced
  #newest = null;
  #resume;
  #inUse = 0;
  #gone = null;
  #timer;
  #nextTry = 0;
  #opened = {};
  #mailbox = null;
  #receipts = new Map(); // of messages in mailboxes: they come whenever they come
  #run = Array.from(crypto.getRandomValues(new Uint8Array(6)), (byte) => byte.toString(16).padStart(2, "0")).join("");

  /**
   * Keeps the position of a client in `localStorage` or `sessionStorage`, under a key of yours: for the option `mailbox`.
   * @param {Storage} storage @param {string} key
   */
  static keptIn(storage, key) {
    return {
      /** @returns {Position | null} */
      load() {
        try {
          const {epoch, after} = JSON.parse(storage.getItem(key));
          if (typeof epoch === "string" && Number.isSafeInteger(after) && after >= 0) return {epoch, after};
        } catch { /* as below */ }
        return null; // half a position proves nothing; the service knows what was confirmed
      },
      /** @param {Position} position */
      save(position) {
        try {
          storage.setItem(key, JSON.stringify(position));
        } catch { // full: an old position would only say that something is missing
          storage.removeItem(key);
        }
      },
    };
  }

  /**
   * @param {string} url
   * @param {object} [options]
   * @param {string} [options.uuid] the address; left out, the service draws one
   * @param {string | (() => string | Promise<string>)} [options.token] may fetch a fresh one whenever one is needed
   * @param {boolean | {load?: () => Position | null, save?: (position: Position) => void}} [options.mailbox] the service
   *   keeps messages while the client is away, and each is handed over once, in order; `NotificationClient.keptIn(localStorage, KEY)`, or
   *   functions of your own, keep the position for the next run, `true` only for this one
   * @param {number} [options.maxKept] how many requests may wait for an answer
   * @param {number} [options.secondMs] how long a second lasts: for tests, which do not wait
   * @param {() => number} [options.random]
   */
  constructor(url, {uuid, token, mailbox = false, maxKept = 1000, secondMs = 1000, random = Math.random} = {}) {
    super();
    if (mailbox && uuid === undefined) throw new TypeError("a mailbox belongs to an address: give `uuid` as well");
    this.uuid = uuid;
    this.#isNamed = uuid != null;
    this.#url = url;
    this.#token = token;
    this.#mailbox = mailbox ? new Mailbox(mailbox === true ? {} : mailbox) : null;
    this.#maxKept = maxKept;
    this.#secondMs = secondMs;
    this.#random = random;
  }

  /** Connect, and stay connected. @returns {Promise<void>} settled when the client is connected, or gone for good */
  open() {
    if (this.#gone) return Promise.reject(this.#gone);
    if (!this.#opened.promise) {
      this.#opened.promise = new Promise((resolve, reject) => { Object.assign(this.#opened, {resolve, reject}); });
      this.#connect();
    }
    return this.#opened.promise;
  }

  /** Leave. What has no answer yet never gets one. */
  close() {
    clearTimeout(this.#timer);
    this.#giveUp("the client is closed");
    this.#link = null;
    this.#newest?.close();
    this.#newest?.endPrevious();
  }

  /**
   * Say something to an address.
   * @param {string} to
   * @param {unknown} message anything that can be JSON
   * @param {{ack?: "accepted" | "delivered"}} [options]
   * @returns {Promise<Sent>} when it has left the service for the recipient; fails when nobody has this address
   */
  send(to, message, {ack = "accepted"} = {}) {
    return this.#send({recipient_uuid: to, message, ack});
  }

  /** The same to all members of a group but this client; there may be none. */
  sendToGroup(group, message, {ack = "accepted"} = {}) {
    return this.#send({group, message, ack});
  }

  /** Become a member of a group, also after every reconnect. @param {string} group */
  async join(group) {
    await this.#request("join", {group}, () => this.#groups.add(group));
  }

  /** The inverse of `join`. @param {string} group */
  async leave(group) {
    await this.#request("leave", {group}, () => this.#groups.delete(group));
  }

  /**
   * Which of these addresses have an owner now; `watch: true`: tell every change from now on as an event.
   * @param {string[]} uuids
   * @param {{watch?: boolean}} [options]
   * @returns {Promise<string[]>}
   */
  async presence(uuids, {watch} = {}) {
    return (await this.#request("presence", {uuids, watch}, (ok) => this.#learn(uuids, watch, ok))).online;
  }

  async #send(fields) {
    const id = this.#nextId();
    const sent = new Sent(id);
    // What is sent again must not be stored again.
    const once = this.#mailbox ? {dedup: id} : {};
    const accept = (ok, link) => {
      sent.accept(ok);
      if (sent.stored && fields.ack === "delivered" && this.#mailbox && !sent.isComplete) {
        this.#receipts.set(id, sent);
        link.receipts.delete(id);
      }
    };
    await this.#request("send", {...fields, ...once}, accept, fields.ack === "delivered" ? sent : undefined, undefined, id);
    return sent;
  }

  /** That of a page which is loaded again must not be that of another message. */
  #nextId() {
    const number = ++this.#ids;
    return this.#mailbox ? `${this.#run}-${number}` : number;
  }

  /** Ask. With a `link` the question is for that connection, and dies with it. */
  #request(type, fields, onOk = () => {}, sent, link, id = this.#nextId()) {
    if (this.#gone) return Promise.reject(this.#gone);
    if (!link && this.#requests.size >= this.#maxKept) {
      return Promise.reject(new RequestError(QUEUE_FULL, `${this.#requests.size} requests wait for an answer`, true));
    }
    const request = {id, text: JSON.stringify({type, id, ...fields}), onOk, sent, isKept: !link, link: null};
    const answer = new Promise((resolve, reject) => { Object.assign(request, {resolve, reject}); });
    this.#requests.set(id, request);
    const via = link ?? this.#link;
    if (via) this.#transmit(request, via);
    return answer;
  }

  #transmit(request, link) {
    request.link = link;
    const size = new TextEncoder().encode(request.text).length;
    if (size > link.messageSize) { // the service would close the connection, and the next one as well
      this.#requests.delete(request.id);
      request.reject(new RequestError(LIMIT, `${size} bytes; the service takes ${link.messageSize}`, false));
      return;
    }
    if (request.sent) {
      request.sent.begin(link);
      link.receipts.set(request.id, request.sent);
    }
    link.sayText(request.text);
  }

  // The connection

  async #connect() {
    let token = this.#token;
    try {
      if (typeof token === "function") token = await token();
    } catch (error) {
      this.#lost(null, {reason: `no token: ${error.message}`});
      return;
    }
    if (this.#gone) return;
    let link;
    try {
      link = new Link(this.#url, (frame) => this.#heard(link, frame), (lost) => this.#lost(link, lost));
    } catch (error) { // not a WebSocket URL, or ws: in a page that came by https:
      const missing = typeof WebSocket === "undefined";
      this.#lost(null, {reason: missing ? "there is no WebSocket here; Node has it from version 22 on" : error.message, final: true});
      return;
    }
    link.socket.onopen = () => {
      link.wasOpen = true;
      if (this.#gone) {
        link.close();
        return;
      }
      // The old one, after a goaway, has served until here. From now on what is sent is kept for the new one.
      link.previous = this.#newest;
      this.#newest = link;
      this.#link = null;
      const mailbox = this.#mailbox?.wanted();
      // A token that is for another address proves none that the service has drawn: it draws a new one.
      const uuid = this.#isNamed || token == null ? this.uuid : undefined;
      link.say({type: "hello", id: 0, uuid, token, resume: this.#resume, mailbox});
    };
  }

  #heard(link, frame) {
    if (this.#gone) return;
    switch (frame.type) {
      case "welcome": link.serverTime = frame.server_time; break;
      case "ok":
      case "error":
        if (!link.isGreeted) this.#greeted(link, frame);
        else this.#answered(link, frame);
        break;
      case "msg": this.#take(link, frame); break;
      case "delivered":
      case "lost":
        this.#settled(link, frame);
        break;
      case "presence":
        if (this.#watched.has(frame.uuid)) this.#see(frame.uuid, frame.state === "online");
        break;
      case "goaway":
        if (link === this.#newest && !link.isLeaving) {
          const toldS = Math.min(frame.reconnect_in_ms / 1000, frame.deadline_ms / 1000, LONGEST_S);
          if (Number.isNaN(toldS)) throw new TypeError("a goaway without its times"); // or it would come back at once
          link.isLeaving = true;
          this.#comeBack({reason: "the service goes away", toldS}, link);
        }
    }
  }

  #greeted(link, answer) {
    link.endPrevious();
    if (answer.type === "error") {
      link.lost(this.#turnedAway(answer));
      return;
    }
    if (typeof answer.uuid !== "string") throw new TypeError("uuid is not text");
    // Without it a token would be refreshed again and again, without a pause.
    if (typeof link.serverTime !== "number") throw new TypeError("a welcome without its time");
    Object.assign(link, {isGreeted: true, since: performance.now(), messageSize: answer.limits.message_size});
    link.watch(answer.ping_ms / 1000 * this.#secondMs);
    this.uuid = answer.uuid;
    this.#resume = answer.resume;
    this.#inUse = 0;
    this.#link = link;
    if (answer.mailbox) this.#found(link, answer.mailbox);
    else this.#expectNoReceipts();
    for (const request of this.#requests.values()) {
      if (request.isKept) this.#transmit(request, link);
    }
    this.#restore(link);
    this.#refreshBefore(answer.expires, link);
    this.#emit("connected", {uuid: answer.uuid});
    this.#opened.resolve?.();
  }

  /** @returns {Lost} */
  #turnedAway({code, reason, temporary}) {
    let final = !temporary;
    if (code === TOKEN_EXPIRED) final = typeof this.#token !== "function";
    else if (code === IN_USE && this.#resume) final = ++this.#inUse >= TRIES_IN_USE;
    return {reason: `${reason} (error ${code})`, final};
  }

  #lost(link, lost) {
    if (this.#gone) return;
    link?.endPrevious();
    if (lost.isNotTaken) this.#refuseAll(link, new RequestError(BAD_REQUEST, lost.reason, false));
    for (const [id, request] of this.#requests) {
      if (!request.isKept && request.link === link) this.#requests.delete(id);
    }
    if (link?.isGreeted && link !== this.#newest) return; // another one has taken its place
    if (this.#link === link) this.#link = null;
    if (link?.isLeaving) { // it went before the time that its goaway told
      const waitS = Math.max(0, this.#nextTry - performance.now()) / this.#secondMs;
      this.#emit("disconnected", {reason: lost.reason, waitS});
    } else {
      this.#comeBack(lost, link);
    }
  }

  /** @param {Lost} lost */
  #comeBack(lost, link) {
    if (lost.final) {
      this.#giveUp(lost.reason);
      this.#emit("gone", {reason: lost.reason});
      return;
    }
    const waitS = this.#waitS(link, lost.toldS);
    const delayMs = waitS * this.#secondMs;
    this.#nextTry = performance.now() + delayMs;
    this.#timer = setTimeout(() => this.#connect(), delayMs);
    if (!this.#link) this.#emit("disconnected", {reason: lost.reason, waitS});
  }

  #waitS(link, toldS) {
    if (link?.isGreeted && performance.now() - link.since >= STABLE_S * this.#secondMs) this.#ceilingS = BACKOFF_BASE_S;
    const isFirst = this.#ceilingS === BACKOFF_BASE_S;
    const waitS = this.#random() * this.#ceilingS;
    this.#ceilingS = Math.min(BACKOFF_CAP_S, this.#ceilingS * 2);
    if (toldS === undefined) return waitS;
    // It is obeyed to the moment once, and soon after that only where the wait is over, or both could go round and round.
    return Math.max(toldS, isFirst ? 0 : waitS);
  }

  #giveUp(reason) {
    this.#gone ??= new GoneError(reason);
    this.#opened.reject?.(this.#gone);
    for (const request of this.#requests.values()) request.reject(this.#gone);
    this.#requests.clear();
    this.#expectNoReceipts();
  }

  /** Receipts may be among what the mailbox has lost: one that comes all the same is an event. */
  #expectNoReceipts() {
    this.#receipts.forEach((sent) => sent.giveUp());
    this.#receipts.clear();
  }

  /** Tell a new connection what an earlier one knew. */
  #restore(link) {
    for (const group of this.#groups) this.#joinAgain(link, group);
    const watched = [...this.#watched.keys()];
    for (let start = 0; start < watched.length; start += MAX_ASKED_FOR) {
      this.#watchAgain(link, watched.slice(start, start + MAX_ASKED_FOR));
    }
  }

  async #joinAgain(link, group) {
    try {
      await this.#request("join", {group}, () => {}, undefined, link);
    } catch (error) {
      if (this.#gone || !link.isOpen) return; // the next connection asks again
      this.#groups.delete(group);
      this.#emit("refused", {reason: `join ${group}: ${error.message}`});
    }
  }

  async #watchAgain(link, uuids) {
    try {
      await this.#request("presence", {uuids, watch: true}, (ok) => this.#learn(uuids, true, ok), undefined, link);
    } catch (error) {
      if (this.#gone || !link.isOpen) return;
      const half = uuids.length >> 1;
      if (half) { // perhaps because of a single one
        await this.#watchAgain(link, uuids.slice(0, half));
        await this.#watchAgain(link, uuids.slice(half));
      } else {
        this.#watched.delete(uuids[0]);
        this.#emit("refused", {reason: `presence ${uuids[0]}: ${error.message}`});
      }
    }
  }

  #refreshBefore(expires, link) {
    if (expires === undefined || typeof this.#token !== "function") return;
    const now = link.serverTime + (performance.now() - link.since) / this.#secondMs;
    link.after(Math.max(1, (expires - now) * REFRESH_AT) * this.#secondMs, async () => {
      try {
        const token = await this.#token();
        await this.#request("refresh", {token}, (ok) => this.#refreshBefore(ok.expires, link), undefined, link);
      } catch { /* the service closes with 4200 when the old token has expired */ }
    });
  }

  #found(link, found) {
    const {missing, lostTo} = this.#mailbox.opened(found);
    if (missing) {
      this.#expectNoReceipts();
      this.#emit("missing", {reason: missing});
    }
    if (lostTo !== undefined) link.say({type: "ack", offset: lostTo});
  }

  #take(link, {sender_uuid, message, recipient_uuid, group, key, offset}) {
    if (this.#isOld(link, offset)) return;
    this.#emit("message", {sender_uuid, message, recipient_uuid, group});
    if (key !== undefined) link.say({type: "ack", key});
    if (offset !== undefined) this.#handled(link, offset);
  }

  /** Whether it was handled before; then its confirmation did not arrive. */
  #isOld(link, offset) {
    if (offset === undefined || this.#mailbox?.isNew(offset)) return false;
    if (this.#mailbox?.position) link.say({type: "ack", offset: this.#mailbox.position.after});
    return true;
  }

  #handled(link, offset) {
    this.#mailbox.handled(offset);
    link.say({type: "ack", offset});
  }

  #settled(link, {id, recipient_uuid: uuid, type: outcome, offset}) {
    if (this.#isOld(link, offset)) return;
    const sent = link.receipts.get(id) ?? this.#receipts.get(id);
    if (offset !== undefined) sent?.conclude(uuid, outcome);
    else sent?.note(link, uuid, outcome);
    this.#receipts.delete(id);
    link.forgetIfComplete(id);
    if (!sent && offset !== undefined) this.#emit("receipt", {id, uuid, outcome});
    if (offset !== undefined) this.#handled(link, offset);
  }

  #answered(link, frame) {
    if (frame.type === "error" && !this.#isKnown(frame.id)) {
      const reason = `${frame.reason}; the service does not say which request it means`;
      this.#refuseAll(link, new RequestError(frame.code, reason, frame.temporary));
      return;
    }
    const request = this.#requests.get(frame.id);
    if (request?.link !== link) return;
    if (frame.type === "ok") {
      request.onOk(frame, link); // may find it odd: then the connection is lost, and the request has no answer yet
      link.forgetIfComplete(frame.id);
      request.resolve(frame);
    } else {
      link.receipts.delete(frame.id);
      request.reject(new RequestError(frame.code, frame.reason, frame.temporary));
    }
    this.#requests.delete(frame.id);
  }

  /** Whether a request ever had this id; it may have been answered. */
  #isKnown(id) {
    const number = this.#mailbox && String(id).startsWith(`${this.#run}-`) ? Number(id.split("-")[1]) : id;
    return Number.isInteger(number) && number >= 0 && number <= this.#ids;
  }

  /** One of those that have no answer is the cause: nobody is to wait for ever, or to send it again and again. */
  #refuseAll(link, error) {
    for (const [id, request] of this.#requests) {
      if (request.link !== link) continue;
      this.#requests.delete(id);
      link.receipts.delete(id);
      request.reject(error);
    }
  }

  #learn(asked, watch, {online}) {
    for (const uuid of asked) {
      if (watch) this.#see(uuid, online.includes(uuid));
      else if (watch === false) this.#watched.delete(uuid);
    }
  }

  #see(uuid, online) {
    const known = this.#watched.get(uuid) ?? online;
    this.#watched.set(uuid, online);
    if (known !== online) this.#emit("presence", {uuid, online});
  }

  #emit(type, detail) {
    this.dispatchEvent(new CustomEvent(type, {detail}));
  }
}

Object.assign(globalThis, {NotificationClient});
}
