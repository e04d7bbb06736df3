-- What each table, view and column holds. Applied with the views after every migration, so that a better text needs no migration.

comment on view account_songs is 'Recordings whose measurements an account may read over HTTP: in its catalogues, in its requests that are not withdrawn, or paid by it through hits or captures. A recording can appear more than once.';
comment on column account_songs.account is 'The account.';
comment on column account_songs.song is 'The recording (ISRC).';

comment on table accounts is 'Accounts that request measurements and pay for them.';
comment on column accounts.id is 'Account id; also metadata.accountId of its Stripe customer.';
comment on column accounts.name is 'Display name. Null for an account first seen in a request.';
comment on column accounts.stripe_customer_id is 'Stripe customer id (cus_…). Null: not looked up yet, or none exists.';
comment on column accounts.created_at is 'When the account was first seen.';
comment on column accounts.share_weight is 'Share of the hits while several accounts wait: an account of weight 2 gets twice as many as one of weight 1.';
comment on column accounts.monthly_hit_cap is 'Hits that may be spent for the account in any 30 days. Null: no limit of its own.';

comment on view active_purchase_pauses is 'Pauses that hold now: not resumed, and not past their end.';
comment on column active_purchase_pauses.id is 'Row of purchase_pauses.';
comment on column active_purchase_pauses.account is 'The account whose purchases are paused. Null: every account''s.';
comment on column active_purchase_pauses.vendor is 'Only purchases from this vendor are paused. Null: from every vendor.';
comment on column active_purchase_pauses.reason is 'Why, as given by the operator.';
comment on column active_purchase_pauses.paused_by is 'User name, or the Dagster run, that began it.';
comment on column active_purchase_pauses.paused_at is 'When it began.';
comment on column active_purchase_pauses.paused_until is 'When it ends by itself. Null: it lasts until it is resumed.';
comment on column active_purchase_pauses.stops_songstats is 'Every hit is stopped.';
comment on column active_purchase_pauses.stops_apify is 'Every actor run is stopped.';

comment on table alembic_version is 'Schema version of this database. Written by `db upgrade` only.';
comment on column alembic_version.version_num is 'The last migration that ran.';

comment on table api_keys is 'Keys of the HTTP API. The key itself is shown once, at creation, and not stored.';
comment on column api_keys.id is 'Row id.';
comment on column api_keys.account is 'Account that the key authenticates.';
comment on column api_keys.name is 'Purpose, as given at creation.';
comment on column api_keys.prefix is 'First characters of the key, which identify it. Not a secret.';
comment on column api_keys.digest is 'HMAC-SHA-256 of the key with the server''s secret (API_KEY_SECRET).';
comment on column api_keys.created_at is 'Creation time.';
comment on column api_keys.expires_at is 'The key is rejected from then on. Null: it does not expire.';
comment on column api_keys.last_used_at is 'Last accepted use, accurate to a minute. Null: never used.';
comment on column api_keys.revoked_at is 'Revocation time; the key is rejected since. Null: not revoked.';

comment on table apify_runs is 'One row per actor run, for up to 100 albums of one capture. The row is written before the start and keeps the result as received.';
comment on column apify_runs.id is 'Row id.';
comment on column apify_runs.snapshot is 'The capture.';
comment on column apify_runs.chunk is 'Part of the capture''s albums, from 0.';
comment on column apify_runs.album_ids is 'Spotify albums of this run.';
comment on column apify_runs.cost_usd is 'Cost in US dollars: what the ended run reports, and until then what is expected.';
comment on column apify_runs.run_id is 'Dagster run that intended to start it.';
comment on column apify_runs.intended_at is 'When the row was written, before the start.';
comment on column apify_runs.actor_run is 'Apify''s run id; also song_measurements.raw_ref. Null: the start is not confirmed. The run is searched for before another one is started.';
comment on column apify_runs.status is 'Apify''s status (READY, RUNNING, SUCCEEDED, FAILED, TIMED-OUT, ABORTED, …), or ours: NOT-STARTED; MALFORMED: the stored result is unreadable; GONE: Apify does not list the run any more; SURPLUS: a second run of the same part, whose result is not used.';
comment on column apify_runs.message is 'The actor''s status message.';
comment on column apify_runs.finished_at is 'When the actor finished, by Apify''s clock.';
comment on column apify_runs.superseded_at is 'When an operator relaunched the capture after this run failed. The run no longer counts as a failure.';
comment on column apify_runs.kept_at is 'When the result was stored.';
comment on column apify_runs.sha256 is 'SHA-256 of the result, hex.';
comment on column apify_runs.body is 'Result as received, complete. It can be mapped again without another purchase.';
comment on column apify_runs.mapped_at is 'When the tracks last became measurements.';
comment on column apify_runs.albums is 'Albums with at least one track.';
comment on column apify_runs.tracks is 'Tracks in the result.';
comment on column apify_runs.recordings is 'Recordings measured.';
comment on column apify_runs.without_count is 'Tracks without a usable count.';
comment on column apify_runs.unmapped is 'Tracks without a known ISRC: id, name, count, reason, and whether the lookup at Spotify is deferred.';
comment on column apify_runs.seen_at is 'When Apify last listed the run. A run that is not listed for an hour does not exist any more.';

comment on table catalog_songs is 'Recordings of a catalogue.';
comment on column catalog_songs.catalog is 'The catalogue.';
comment on column catalog_songs.song is 'The recording (ISRC).';

comment on table catalogs is 'A named set of recordings of one account.';
comment on column catalogs.id is 'Catalogue id; scope.catalog_id of a request.';
comment on column catalogs.account is 'Owner. For requests of other accounts the catalogue does not exist.';
comment on column catalogs.name is 'Name, unique per account.';
comment on column catalogs.created_at is 'First import.';
comment on column catalogs.partition_key is 'Partition key of asset analytics/catalog_charts: catalogue name, account name and the beginning of the id. Null: no partition yet.';

comment on table client_logins is 'Account of each client''s database login. Row-level security uses it, because any session could change a session setting.';
comment on column client_logins.login is 'Login role, as in current_user.';
comment on column client_logins.account is 'Account whose requests the login may insert and read.';
comment on column client_logins.created_at is 'When the login was added.';

comment on table deployment is 'One row: whether this database holds sandbox (invented) or live (bought) history. Set by the first migration. A process with vendors of the other kind refuses to start.';
comment on column deployment.only_row is 'Always true; limits the table to one row.';
comment on column deployment.kind is 'sandbox: vendor doubles, every figure is invented. live: real vendors, real money.';
comment on column deployment.created_at is 'When the stamp was set.';

comment on table history_imports is 'Files of daily plays that artists exported, as imported. Their points are in song_measurements with raw_ref history_imports/<id>.';
comment on column history_imports.id is 'Row id.';
comment on column history_imports.song is 'The recording (ISRC) that the file is about, as given at the import.';
comment on column history_imports.format is 'Format of the file: spotify-for-artists.';
comment on column history_imports.file_name is 'Name of the file, without its directory.';
comment on column history_imports.sha256 is 'SHA-256 of the file, hex.';
comment on column history_imports.body is 'The file as received.';
comment on column history_imports.imported_by is 'User name.';
comment on column history_imports.imported_at is 'When it was imported.';
comment on column history_imports.days is 'Days with a figure.';
comment on column history_imports.first_day is 'First of them.';
comment on column history_imports.last_day is 'Last of them.';
comment on column history_imports.plays is 'Sum of the daily plays.';

comment on table incidents is 'Failures that need a person''s attention. One row per incident, however many runs fail because of it.';
comment on column incidents.id is 'Incident id.';
comment on column incidents.key is 'Identifies equal failures: where and why it failed, without changing figures.';
comment on column incidents.what is 'Message of the first occurrence.';
comment on column incidents.times is 'Number of occurrences.';
comment on column incidents.opened_at is 'First occurrence.';
comment on column incidents.last_at is 'Last occurrence.';
comment on column incidents.told_at is 'When the webhook accepted the message. Null: not posted yet, or no webhook is configured.';
comment on column incidents.ended_at is 'When it ended: its check passed, a run of its job succeeded, its breaker was closed, or it did not occur for 7 days.';

comment on table job_callbacks is 'Outbox of callbacks: one row each time a request with a callback_url ends or needs a card. Written by a trigger of measurement_jobs.';
comment on column job_callbacks.id is 'Id of the callback, in its body. A receiver can get a callback twice, and recognises it by this id.';
comment on column job_callbacks.job is 'The request.';
comment on column job_callbacks.account is 'Account of the request, whose secret signs the callback.';
comment on column job_callbacks.state is 'State of the request that the callback reports.';
comment on column job_callbacks.body is 'Content, as of that state. The id and the time of the row are added when it is sent.';
comment on column job_callbacks.created_at is 'When the request reached the state.';
comment on column job_callbacks.attempts is 'Attempts to send it, the current one included.';
comment on column job_callbacks.next_attempt_at is 'Not sent before this time. While it is being sent: when the attempt counts as lost.';
comment on column job_callbacks.retry_until is 'It is abandoned at the first failure whose next attempt would come later: three days after its creation, or after it was sent again by hand.';
comment on column job_callbacks.delivered_at is 'When the receiver accepted it (2xx). Null: not yet.';
comment on column job_callbacks.abandoned_at is 'When it was given up. Null: not abandoned.';
comment on column job_callbacks.last_status_code is 'HTTP status of the last answer. Null: none.';
comment on column job_callbacks.last_error is 'Why the last attempt failed. Null: it did not.';

comment on view latest_counts is 'One row per recording with a count: the newest measured one, or an imported one if none was measured.';
comment on column latest_counts.song is 'The recording (ISRC).';
comment on column latest_counts.name is 'Title. Null if only the ISRC is known.';
comment on column latest_counts.artist is 'Artist as displayed.';
comment on column latest_counts.album is 'Album as displayed.';
comment on column latest_counts.play_count is 'Total plays since release.';
comment on column latest_counts.captured_at is 'Time of the count.';
comment on column latest_counts.data_source is 'Origin: apify_spotify_playcount, songstats, or import (from a catalogue file, not measured).';
comment on column latest_counts.learnt_at is 'When it was stored.';

comment on table measurement_job_songs is 'Recordings of a request, whichever request queued them first. Used for progress, the receipt and the payer.';
comment on column measurement_job_songs.job is 'The request.';
comment on column measurement_job_songs.song is 'The recording (ISRC).';

comment on table measurement_jobs is 'Requests for measurements. A client inserts account, source and scope, and reads the answer from the same row.';
comment on column measurement_jobs.id is 'Request id.';
comment on column measurement_jobs.account is 'Account that requests and pays.';
comment on column measurement_jobs.source is 'historical or current. Any text is accepted: an invalid request is answered in this row instead of refused at insert. A request larger than 1 MiB in total is refused (measurement_jobs_request_size).';
comment on column measurement_jobs.scope is 'Exactly one of {"isrcs": […]}, {"album_ids": […]}, {"catalog_id": "…"}, with at most 10,000 values. Any JSON is accepted, as for source.';
comment on column measurement_jobs.platforms is 'Platforms to measure. Only spotify is supported.';
comment on column measurement_jobs.state is 'queued → accepted → done; rejected (400, 429, or 402 when unpaid for 7 days); payment_required (402) → accepted once a card is on file; failed (intake attempts used up, or the capture failed: see error); withdrawn.';
comment on column measurement_jobs.status_code is 'Answer as an HTTP status: 202 accepted, 400 rejected, 402 no card on file, 404 unknown albums, 429 over the monthly capture cap, 500 failed. Null while queued.';
comment on column measurement_jobs.error is 'Why the request was rejected, what it waits for, or what the answer lacks.';
comment on column measurement_jobs.checkout_url is 'Page where the account can save a card, while payment_required.';
comment on column measurement_jobs.asked is 'Recordings of the scope. historical: enqueued + skipped + recordings already queued for another request; written once. current: null if albums were named.';
comment on column measurement_jobs.enqueued is 'Recordings that this request added to the queue.';
comment on column measurement_jobs.recording_limit is 'Want only so many recordings of the scope, the most played ones. Null: no such limit.';
comment on column measurement_jobs.coverage is 'Want only the most played recordings with this share of the scope''s known plays, above 0 and at most 1. Null: all.';
comment on column measurement_jobs.callback_url is 'Address that is called, signed, when the request ends or needs a card. May contain a secret of the client. Null: none.';
comment on column measurement_jobs.left_out is 'Recordings of the scope that recording_limit or coverage left out, as of acceptance. Another request may still want them.';
comment on column measurement_jobs.covered_share is 'Share of the scope''s known plays that the wanted recordings have, as of acceptance. Null: nothing was left out by choice, or no play count was known.';
comment on column measurement_jobs.skipped is 'historical: recordings already owned or settled, which cost no hit. current: recordings without a known album, which no capture can measure.';
comment on column measurement_jobs.snapshot is 'Capture that answers a current request. Null for historical ones.';
comment on column measurement_jobs.attempts is 'Intake attempts that started without reaching an answer. Counted before the scope is read.';
comment on column measurement_jobs.not_before is 'Intake does not process the request before this time.';
comment on column measurement_jobs.run_id is 'Dagster run (or caller) that last processed it.';
comment on column measurement_jobs.created_at is 'When it was inserted.';
comment on column measurement_jobs.updated_at is 'Last change of state.';
comment on column measurement_jobs.schedule is 'once, or monthly: a current request that is captured again every 30 days. Any text is accepted, as for source.';
comment on column measurement_jobs.estimated_cost_usd is 'Cost of a current request in US dollars: albums × 0.003; 0 if an earlier capture answers it. Null for historical ones.';
comment on column measurement_jobs.reused is 'Whether a capture of the same albums from the last hour answers it. Null for historical ones.';
comment on column measurement_jobs.idempotency_key is 'Idempotency-Key of an HTTP request. The same key again returns this row. Null without one.';
comment on column measurement_jobs.idempotency_digest is 'SHA-256 of the request body for that key. A different body with the same key is rejected.';
comment on column measurement_jobs.partitions_at is 'When the recordings of an accepted historical request were registered as Dagster partitions. Null: not yet.';
comment on column measurement_jobs.is_paying is 'Whether the queue counts its recordings for its account: accepted, and the account had a saved card. The planner sets it.';

comment on table operator_acts is 'Audit log of operators'' overrides.';
comment on column operator_acts.id is 'Entry id.';
comment on column operator_acts.at is 'Time.';
comment on column operator_acts.actor is 'Login name, or the Dagster run that was launched.';
comment on column operator_acts.act is 'Action: requeue, breaker closed, launched, …';
comment on column operator_acts.detail is 'Target and counts.';

comment on table payment_decisions is 'Stripe''s last answer per account. An unknown result (Stripe unreachable) is never stored.';
comment on column payment_decisions.account is 'The account.';
comment on column payment_decisions.verdict is 'allowed: a card is on file; valid for 10 minutes before Stripe is asked again. denied: no card; the next check asks Stripe again.';
comment on column payment_decisions.checked_at is 'When Stripe answered.';
comment on column payment_decisions.checkout_url is 'Open Stripe Checkout page where a denied account can save a card.';
comment on column payment_decisions.checkout_expires_at is 'When that page expires. A later denial creates a new one.';

comment on table playcount_series is 'Captures that repeat every 30 days. One row per account and set of albums.';
comment on column playcount_series.id is 'Series id.';
comment on column playcount_series.account is 'Account that requested it.';
comment on column playcount_series.catalog is 'Catalogue of the request. Null if albums or recordings were named.';
comment on column playcount_series.album_ids is 'Spotify albums, sorted, as of the request.';
comment on column playcount_series.albums_digest is 'SHA-256 of the album ids; equal sets have equal digests.';
comment on column playcount_series.isrcs is 'Recordings of the request. Null if albums or a catalogue were named.';
comment on column playcount_series.platforms is 'Platforms to measure.';
comment on column playcount_series.created_at is 'First request.';
comment on column playcount_series.stopped_at is 'When it was stopped; no further captures. A new request restarts it.';
comment on column playcount_series.started_at is 'When it was requested, or restarted after a stop.';

comment on table playcount_snapshots is 'One row per capture: the play counts that Spotify displays for a set of albums, captured once.';
comment on column playcount_snapshots.id is 'Capture id: measurement_jobs.snapshot and song_measurements.snapshot.';
comment on column playcount_snapshots.account is 'Account whose monthly cap it counts against.';
comment on column playcount_snapshots.catalog is 'Catalogue of the request. Null if albums or recordings were named.';
comment on column playcount_snapshots.album_ids is 'Spotify albums, sorted.';
comment on column playcount_snapshots.albums_digest is 'SHA-256 of the album ids; equal sets have equal digests.';
comment on column playcount_snapshots.isrcs is 'Recordings of the request. Null if albums or a catalogue were named.';
comment on column playcount_snapshots.platforms is 'Platforms to measure.';
comment on column playcount_snapshots.schedule is 'once, or monthly: part of a series.';
comment on column playcount_snapshots.state is 'queued → running → done; failed: nothing was captured, see error. done with an error: some albums are missing.';
comment on column playcount_snapshots.album_count is 'Number of albums.';
comment on column playcount_snapshots.reused_album_ids is 'Albums that another capture of the account had captured within the hour before. They are not paid for again; their counts belong to that capture.';
comment on column playcount_snapshots.estimated_cost_usd is 'Expected cost in US dollars: APIFY_USD_PER_ALBUM for each album that is not reused. Counts against the month (UTC) of creation.';
comment on column playcount_snapshots.error is 'Why it failed, what is missing, or what it waits for; the actor''s own message if there is one.';
comment on column playcount_snapshots.attempts is 'Runs that claimed it. Limited; refunded if the vendor was unreachable.';
comment on column playcount_snapshots.claimed_by is 'Dagster run that owns it, while running or while stored results are mapped again.';
comment on column playcount_snapshots.not_before is 'Not claimed before this time.';
comment on column playcount_snapshots.captured_at is 'Time of its counts: when the actor finished the first stored part, by Apify''s clock, and never later than the database''s clock.';
comment on column playcount_snapshots.tracks is 'Tracks captured. A recording on two albums has two tracks.';
comment on column playcount_snapshots.recordings is 'Recordings measured.';
comment on column playcount_snapshots.without_count is 'Tracks without a usable count; they give no measurement.';
comment on column playcount_snapshots.unmapped is 'Tracks without a known ISRC; apify_runs.unmapped lists them.';
comment on column playcount_snapshots.created_at is 'When it was requested.';
comment on column playcount_snapshots.updated_at is 'Last change of state.';
comment on column playcount_snapshots.status_code is 'Status for its requests if it failed: 404 if no track was found and no recording has any of the albums, otherwise 500.';
comment on column playcount_snapshots.partition_key is 'Partition key of asset current_play_counts: catalogue or first album, day, and the beginning of the id. Null: no partition yet.';

comment on view playcount_spent_this_month is 'Cost of each account''s captures in this calendar month (UTC), including the reserved cost of open ones. In US dollars.';
comment on column playcount_spent_this_month.account is 'The account.';
comment on column playcount_spent_this_month.usd is 'US dollars; limited by SNAPSHOT_MONTHLY_CAP_USD.';

comment on table purchase_pauses is 'Pauses of purchases that an operator began. While one holds, no hit is reserved and no actor run is started for what it covers.';
comment on column purchase_pauses.id is 'Row id.';
comment on column purchase_pauses.account is 'The account whose purchases are paused. Null: every account''s.';
comment on column purchase_pauses.vendor is 'songstats or apify: only purchases from this vendor are paused. Null: from every vendor.';
comment on column purchase_pauses.reason is 'Why, as given by the operator. Shown wherever the pause is.';
comment on column purchase_pauses.paused_by is 'User name, or the Dagster run, that began it.';
comment on column purchase_pauses.paused_at is 'When it began.';
comment on column purchase_pauses.paused_until is 'When it ends by itself, by the database''s clock. Null: it lasts until it is resumed.';
comment on column purchase_pauses.resumed_at is 'When it was ended early, or replaced by another pause of the same scope. Null: not ended by a person.';
comment on column purchase_pauses.resumed_by is 'User name, or the Dagster run, that ended it.';

comment on table run_heartbeats is 'Last heartbeat of each Dagster run of intake, backfill and captures. Dagster''s run status does not show whether the process is alive.';
comment on column run_heartbeats.run_id is 'The Dagster run.';
comment on column run_heartbeats.beat_at is 'Last heartbeat.';

comment on table song_identifiers is 'Identifiers of recordings on other platforms. An album id belongs to every recording on the album.';
comment on column song_identifiers.song is 'The recording (ISRC).';
comment on column song_identifiers.platform is 'Platform: spotify, …';
comment on column song_identifiers.identifier_type is 'Kind of identifier: album_id, track_id, …';
comment on column song_identifiers.value is 'The identifier.';

comment on table song_latest_counts is 'The latest count of each recording, as latest_count_of computes it. Triggers of song_measurements update it in the transaction that stores a measurement; nothing else writes it.';
comment on column song_latest_counts.song is 'The recording (ISRC).';
comment on column song_latest_counts.play_count is 'Total plays since release.';
comment on column song_latest_counts.captured_at is 'Time of the count.';
comment on column song_latest_counts.data_source is 'Origin: apify_spotify_playcount, songstats, or import (from a catalogue file, not measured).';
comment on column song_latest_counts.learnt_at is 'When it was stored.';

comment on table song_measurements is 'All figures, append-only. A restatement is a second row for the same point with a later learnt_at; the row with the newest learnt_at is current.';
comment on column song_measurements.song is 'The recording (ISRC). No foreign key: each row comes from a queue row, an import or a capture that has one, and the check would cost more than the insert.';
comment on column song_measurements.platform is 'Platform: spotify.';
comment on column song_measurements.metric is 'platform_displayed_play_count: cumulative plays as displayed. popularity: Spotify''s 0 to 100 level. daily_streams: plays of one day, as an artist exported them.';
comment on column song_measurements.captured_at is 'Time of the figure. A daily point is that date at 00:00 UTC.';
comment on column song_measurements.data_source is 'Origin: songstats (bought history), apify_spotify_playcount (capture), import (catalogue file), spotify_for_artists (an artist''s export).';
comment on column song_measurements.learnt_at is 'When it was stored.';
comment on column song_measurements.value is 'The figure as received. Cumulative counts can fall or stay flat, and are stored unchanged.';
comment on column song_measurements.raw_ref is 'Source: songstats_responses/<id>, apify_runs.actor_run of a capture, history_imports/<id> of an artist''s export, or the name of the imported file.';
comment on column song_measurements.snapshot is 'Capture that measured it. Null for bought history.';

comment on table songs is 'One row per recording, keyed by ISRC. Titles come from catalogues and Spotify; null if only the ISRC is known.';
comment on column songs.isrc is 'ISRC (ISO 3901), twelve characters, upper case, no hyphens.';
comment on column songs.name is 'Title of the recording.';
comment on column songs.artist is 'Artist as displayed.';
comment on column songs.album is 'Album as displayed.';
comment on column songs.release_date is 'Release date. Null if unknown.';
comment on column songs.created_at is 'When the recording was first seen.';
comment on column songs.updated_at is 'Last change of title, artist, album or date.';

comment on table songstats_backfill_queue is 'One row per recording, for ever: whether its history is to be bought, being bought, or settled.';
comment on column songstats_backfill_queue.song is 'The recording (ISRC).';
comment on column songstats_backfill_queue.rank_score is 'Latest known play count; the most played recording is bought first. 0 if unknown.';
comment on column songstats_backfill_queue.status is 'pending: to be bought. in_progress: claimed by a run. done: settled. failed: settled with malformed or exhausted; transient failures return to pending.';
comment on column songstats_backfill_queue.outcome is 'stored, no_history, rejected (done); malformed, exhausted, transient (failed). Null before.';
comment on column songstats_backfill_queue.attempts is 'Runs that reserved a call for it. Limited.';
comment on column songstats_backfill_queue.attempt_run is 'Run that counted the last attempt, so that one run counts once.';
comment on column songstats_backfill_queue.lease is 'Increases with each claim. A write with an older lease changes nothing.';
comment on column songstats_backfill_queue.claimed_by is 'Dagster run that owns it, while in_progress.';
comment on column songstats_backfill_queue.last_run is 'Run that last claimed it; kept after it is settled.';
comment on column songstats_backfill_queue.claimed_at is 'Last claim.';
comment on column songstats_backfill_queue.heartbeat_at is 'Owner''s last heartbeat, while in_progress. An old one means that the claim is abandoned.';
comment on column songstats_backfill_queue.not_before is 'Not due before this time.';
comment on column songstats_backfill_queue.operator_launched is 'Launched by an operator. If no request pays, the operators'' account does.';
comment on column songstats_backfill_queue.suspect is 'Settled in a streak that opened the breaker, so the key or the vendor may be the cause. requeue --suspect returns these rows to pending.';
comment on column songstats_backfill_queue.last_status_code is 'Last HTTP status of the vendor.';
comment on column songstats_backfill_queue.last_error is 'Description of the last failure.';
comment on column songstats_backfill_queue.created_at is 'When it was first enqueued. Gives its age in the queue.';
comment on column songstats_backfill_queue.requeued_at is 'Last return to pending after a failure. The age counts from then, so that it does not overtake rows that waited.';
comment on column songstats_backfill_queue.account is 'Account that pays: that of the earliest accepted request with a saved card, or the operators'' account. Null: no account pays. The planner updates it; the reservation decides.';
comment on column songstats_backfill_queue.updated_at is 'Last change of status.';

comment on view songstats_call_gate is 'Whether this deployment may call Songstats at all: one row.';
comment on column songstats_call_gate.is_open is 'The circuit breaker is closed, and no pause lasts.';

comment on view songstats_open_rows is 'Queue rows that are pending or in progress, and whether anyone still wants them.';
comment on column songstats_open_rows.song is 'The recording (ISRC).';
comment on column songstats_open_rows.rank_score is 'See songstats_backfill_queue.';
comment on column songstats_open_rows.status is 'pending or in_progress.';
comment on column songstats_open_rows.attempts is 'See songstats_backfill_queue.';
comment on column songstats_open_rows.lease is 'See songstats_backfill_queue.';
comment on column songstats_open_rows.claimed_by is 'See songstats_backfill_queue.';
comment on column songstats_open_rows.not_before is 'See songstats_backfill_queue.';
comment on column songstats_open_rows.last_error is 'See songstats_backfill_queue.';
comment on column songstats_open_rows.operator_launched is 'See songstats_backfill_queue.';
comment on column songstats_open_rows.requeued_at is 'See songstats_backfill_queue.';
comment on column songstats_open_rows.created_at is 'See songstats_backfill_queue.';
comment on column songstats_open_rows.is_wanted is 'An accepted request wants it, or an operator launched it.';
comment on column songstats_open_rows.has_unread_response is 'A response is stored that was not parsed yet: parsing it needs no hit.';

comment on table songstats_shares is 'Share of the hits of each account that had recordings to buy, as of the planner''s last plan.';
comment on column songstats_shares.account is 'The account.';
comment on column songstats_shares.credit is 'Hits that the account is behind its share; negative: ahead of it. Less than one hit while plans are bought as planned.';
comment on column songstats_shares.is_waiting is 'Whether it had recordings to buy at the last plan.';
comment on column songstats_shares.hits is 'Hits that were spent for it and counted. Each tenth goes to its longest waiting recording.';
comment on column songstats_shares.updated_at is 'When a plan last changed the row.';

comment on table songstats_quota_ledger is 'One row per call to Songstats: reserved before the call, settled after it.';
comment on column songstats_quota_ledger.id is 'Ledger id.';
comment on column songstats_quota_ledger.song is 'The requested recording (ISRC).';
comment on column songstats_quota_ledger.account is 'Account that pays for the hit.';
comment on column songstats_quota_ledger.job is 'Request that pays. Null if an operator launched it.';
comment on column songstats_quota_ledger.run_id is 'Dagster run that called.';
comment on column songstats_quota_ledger.lease is 'Lease of the claim.';
comment on column songstats_quota_ledger.reserved_at is 'When the hit was reserved, before the call.';
comment on column songstats_quota_ledger.settled_at is 'When the result was recorded, also for a missing response. Null: the call is in flight, or its run ended without a result.';
comment on column songstats_quota_ledger.status_code is 'HTTP status of the response. Null without one.';
comment on column songstats_quota_ledger.billable is 'Whether the vendor counts the hit: true, false, or null while unknown. The budget counts true and null. Null becomes false if the vendor''s monthly count shows it (reconciled_at).';
comment on column songstats_quota_ledger.reason is 'Result of the hit.';
comment on column songstats_quota_ledger.reconciled_at is 'When the vendor''s monthly count showed that a call of unknown result was not billed. Null otherwise. operator_acts has the figures.';

comment on table songstats_responses is 'Paid responses as received, complete. A newer parser can read them again without a hit.';
comment on column songstats_responses.id is 'Response id; song_measurements.raw_ref refers to it as songstats_responses/<id>.';
comment on column songstats_responses.song is 'The requested recording (ISRC).';
comment on column songstats_responses.ledger is 'The call.';
comment on column songstats_responses.received_at is 'When it was stored.';
comment on column songstats_responses.status_code is 'HTTP status.';
comment on column songstats_responses.headers is 'Selected response headers, without credentials.';
comment on column songstats_responses.sha256 is 'SHA-256 of the body, hex.';
comment on column songstats_responses.body is 'The body after transfer and content decoding.';
comment on column songstats_responses.parser_version is 'Version of the parser that last read it. Null: not parsed yet, because of a crash or a requeue.';

comment on view songstats_unread_responses is 'Paid responses that were not parsed yet, because of a crash or a requeue. Parsing them needs no hit.';
comment on column songstats_unread_responses.id is 'The response.';
comment on column songstats_unread_responses.song is 'The recording (ISRC).';
comment on column songstats_unread_responses.ledger is 'The call.';

comment on view songstats_wanted is 'Recordings that an accepted request wants: one row for each request and recording.';
comment on column songstats_wanted.song is 'The recording (ISRC).';
comment on column songstats_wanted.job is 'The request.';
comment on column songstats_wanted.account is 'The account of the request.';
comment on column songstats_wanted.created_at is 'When the request was made.';

comment on table vendor_drifts is 'How the first stored answer of a day differs in form from the hundred before it. No row: it does not.';
comment on column vendor_drifts.id is 'Row id.';
comment on column vendor_drifts.vendor is 'songstats.';
comment on column vendor_drifts.found_at is 'When the answer was read.';
comment on column vendor_drifts.new_fields is 'Fields and platform names that no earlier answer has. A warning.';
comment on column vendor_drifts.missing_fields is 'Fields that every earlier answer has and this one lacks. The breaker opened.';
comment on column vendor_drifts.changed_types is 'Fields with a type that no earlier answer has. The breaker opened.';

comment on table vendor_state is 'State of each vendor for the whole deployment: breaker, throttle pause and pace. One row per vendor.';
comment on column vendor_state.vendor is 'songstats, apify or spotify. Rows of apify and spotify appear with their first pause.';
comment on column vendor_state.breaker is 'open: no recording is claimed and no call is made until it is closed.';
comment on column vendor_state.breaker_kind is 'key: the key was refused; a free probe closes it once the key works. streak: the responses made no sense; drift: the first answer of a day has another form. An operator closes these two.';
comment on column vendor_state.reason is 'Why it is open.';
comment on column vendor_state.opened_at is 'When it opened.';
comment on column vendor_state.streak_since is 'Start of the current streak: when the breaker was last closed. Older responses do not count.';
comment on column vendor_state.paused_until is 'End of the pause that the vendor requested (429). Nothing is due before.';
comment on column vendor_state.throttled is 'Consecutive pauses after a 429. Each one is longer than the last.';
comment on column vendor_state.next_call_at is 'Earliest time of the next call, which sets the pace.';
comment on column vendor_state.stumbled is 'Consecutive pauses after 5xx responses or timeouts. Each one is longer than the last.';
comment on column vendor_state.pause_reason is 'Reason of the current or last pause.';
comment on column vendor_state.no_probe_before is 'End of the part of the pause that the vendor requested (Retry-After). No probe before then; the rest of the pause is an estimate.';
comment on column vendor_state.shared_up_to is 'Last row of songstats_quota_ledger that songstats_shares includes.';

comment on function measurement_job_bytes(text, jsonb, text[], text) is 'Size of a request in bytes: source, scope, platforms and schedule together.';
