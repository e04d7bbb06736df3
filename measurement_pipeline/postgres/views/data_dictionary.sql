-- What every view and column means, from the COMMENTs: `meaning | unit: … | source: …`.
create or replace view analytics.data_dictionary as
select
    relation.relname::text as view_name,
    obj_description(relation.oid, 'pg_class') as view_meaning,
    attribute.attnum::int as position, -- noqa: RF04
    attribute.attname::text as column_name,
    format_type(attribute.atttypid, attribute.atttypmod) as type,
    substring(described.text from '\| unit: ([^|]+?) \|') as unit,
    split_part(described.text, ' | ', 1) as meaning,
    substring(described.text from '\| source: (.+)$') as source
from pg_class as relation
inner join pg_attribute as attribute on relation.oid = attribute.attrelid and attribute.attnum > 0 and not attribute.attisdropped
cross join lateral (select col_description(relation.oid, attribute.attnum) as text) as described
where relation.relnamespace = 'analytics'::regnamespace and relation.relkind in ('v', 'm', 'r')
union all
-- A function's columns are those of the view that it returns rows of.
select
    routine.proname || '(' || pg_get_function_identity_arguments(routine.oid) || ')' as view_name,
    obj_description(routine.oid, 'pg_proc') as view_meaning,
    attribute.attnum::int as position, -- noqa: RF04
    attribute.attname::text as column_name,
    format_type(attribute.atttypid, attribute.atttypmod) as type,
    substring(described.text from '\| unit: ([^|]+?) \|') as unit,
    split_part(described.text, ' | ', 1) as meaning,
    substring(described.text from '\| source: (.+)$') as source
from pg_proc as routine
inner join pg_type as returned on routine.prorettype = returned.oid
inner join pg_attribute as attribute on returned.typrelid = attribute.attrelid and attribute.attnum > 0 and not attribute.attisdropped
cross join lateral (select col_description(returned.typrelid, attribute.attnum) as text) as described
where routine.pronamespace = 'analytics'::regnamespace;
comment on view analytics.data_dictionary is 'One row for each column of every view here: its type, unit, meaning, and where it comes from.';
comment on column analytics.data_dictionary.view_name is 'The view, or the function with its arguments. | unit: name | source: the database''s catalogue';
comment on column analytics.data_dictionary.view_meaning is 'The meaning of one row of the view. | unit: text | source: COMMENT';
comment on column analytics.data_dictionary.position is 'The position of the column in the view. | unit: number | source: the database''s catalogue';
comment on column analytics.data_dictionary.column_name is 'The column. | unit: name | source: the database''s catalogue';
comment on column analytics.data_dictionary.type is 'The type of the column. | unit: PostgreSQL type | source: the database''s catalogue';
comment on column analytics.data_dictionary.unit is 'The unit of its values. | unit: text | source: COMMENT';
comment on column analytics.data_dictionary.meaning is 'The meaning of the column. | unit: text | source: COMMENT';
comment on column analytics.data_dictionary.source is 'The table or column that it comes from. | unit: text | source: COMMENT';
