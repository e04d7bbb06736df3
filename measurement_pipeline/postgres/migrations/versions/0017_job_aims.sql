-- What a request wants of its scope, and what it therefore leaves out. Unconstrained, like source and scope: a bad value is answered.
alter table measurement_jobs
add column recording_limit integer,
add column coverage numeric,
add column left_out integer,
add column covered_share double precision;
