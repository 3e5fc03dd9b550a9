/** Anything that JSON can say. */
export type Json = string | number | boolean | null | readonly Json[] | { readonly [key: string]: Json };

/** Whether a sender wants to know that its message has left the service, or that it was confirmed. */
export type Acknowledgement = "accepted" | "delivered";

export type Outcome = "delivered" | "lost";

/** What somebody said to the client, or to a group that it is in. */
export interface Message {
  readonly sender_uuid: string;
  /** What the sender gave; the application knows what it expects there. */
  readonly message: unknown;
  readonly recipient_uuid?: string;
  readonly group?: string;
}

export interface ClientOptions {
  /** The address; left out, the service draws one. */
  uuid?: string;
  /** A token, or what fetches a fresh one whenever one is needed. */
  token?: string | (() => string | Promise<string>);
  /**
   * The service keeps messages while the client is away, and each is handed over once, in order. `NotificationClient.keptIn(...)`, or
   * functions of your own, keep the position for the next run, `true` only for this one.
   */
  mailbox?: boolean | Keeper;
  /** How many requests may wait for an answer; 1000 unless given. */
  maxKept?: number;
  /** How long a second lasts, in milliseconds: for tests, which do not wait. */
  secondMs?: number;
  /** A number from 0 to 1, by which waits are multiplied. */
  random?: () => number;
}

/** How far a client has got in its mailbox: everything up to `after` was handled. */
export interface Position {
  epoch: string;
  after: number;
}

/** Where a position outlives the page. */
export interface Keeper {
  load?(): Position | null;
  save?(position: Position): void;
}

export interface SendOptions {
  ack?: Acknowledgement;
}

/** The events of a client by their names. */
export interface ClientEventMap {
  /** Confirmed to its sender when the listeners have returned. */
  message: CustomEvent<Message>;
  /** The service has taken the client in under this address. */
  connected: CustomEvent<{ readonly uuid: string }>;
  /** The next try is in so many seconds. */
  disconnected: CustomEvent<{ readonly reason: string; readonly waitS: number }>;
  /** There is no next try, and every method fails with a `GoneError`. */
  gone: CustomEvent<{ readonly reason: string }>;
  /** A watched address has got an owner, or lost it. */
  presence: CustomEvent<{ readonly uuid: string; readonly online: boolean }>;
  /** The mailbox does not have everything any more that was kept for the client. */
  missing: CustomEvent<{ readonly reason: string }>;
  /** What became of a message that an earlier run has sent. */
  receipt: CustomEvent<{ readonly id: string; readonly uuid: string; readonly outcome: Outcome }>;
  /** After a reconnect the service has refused a group or a watch that it had granted before. */
  refused: CustomEvent<{ readonly reason: string }>;
}

/** The answer is no. */
export class RequestError extends Error {
  constructor(code: number, reason: string, temporary: boolean);
  /** One of the error codes of the protocol, such as 114 where nobody has the address. */
  readonly code: number;
  readonly reason: string;
  /** Whether the same may succeed later. */
  readonly temporary: boolean;
}

/** The client has no connection and will not come back; the message says why. */
export class GoneError extends Error {}

/** A message that the service has accepted. */
export interface Sent {
  /** By what a receipt names it that comes to a later run. */
  readonly id: number | string;
  /** Whether it is in the mailbox of the recipient. */
  readonly stored: boolean;
  /** For how many recipients. */
  readonly online: number;
  /** By recipient, as far as it is known. */
  readonly outcomes: ReadonlyMap<string, Outcome>;
  /** With `ack: "delivered"`: "delivered" when all recipients have confirmed, and else "lost". */
  readonly outcome: Promise<Outcome>;
}

/** A client that stays connected. What had no answer when the connection was lost is sent again. */
export class NotificationClient extends EventTarget {
  /** Keeps the position in `localStorage` or `sessionStorage`, under a key of yours. */
  static keptIn(
    storage: { getItem(key: string): string | null; setItem(key: string, value: string): void },
    key: string,
  ): Keeper;
  constructor(url: string, options?: ClientOptions);

  /** The address; known after `open`. */
  readonly uuid: string | undefined;

  /** Connect, and stay connected. Settled when the client is connected, or gone for good. */
  open(): Promise<void>;

  /** Leave. What has no answer yet never gets one. */
  close(): void;

  /** Say something to an address. Fails when nobody has it. */
  send(to: string, message: Json, options?: SendOptions): Promise<Sent>;

  /** The same to all members of a group but this client; there may be none. */
  sendToGroup(group: string, message: Json, options?: SendOptions): Promise<Sent>;

  /** Become a member of a group, also after every reconnect. */
  join(group: string): Promise<void>;

  /** The inverse of `join`. */
  leave(group: string): Promise<void>;

  /** Which of these addresses have an owner now; `watch: true`: tell every change from now on as an event. */
  presence(uuids: readonly string[], options?: { watch?: boolean }): Promise<string[]>;

  addEventListener<K extends keyof ClientEventMap>(
    type: K,
    listener: ((event: ClientEventMap[K]) => void) | { handleEvent(event: ClientEventMap[K]): void } | null,
    options?: boolean | { capture?: boolean; once?: boolean; passive?: boolean; signal?: AbortSignal },
  ): void;

  removeEventListener<K extends keyof ClientEventMap>(
    type: K,
    listener: ((event: ClientEventMap[K]) => void) | { handleEvent(event: ClientEventMap[K]): void } | null,
    options?: boolean | { capture?: boolean },
  ): void;
}
