"""Functions of PostgreSQL that only read. Pure.

A mere `SELECT` can write, lock, change settings, end other sessions, read the server's files and connect elsewhere, all
by functions, and whoever may create one can add to that. So a function runs if it is known to do nothing but compute
and read what its statement may read; a policy names what else may be called. A test holds these names against the
catalog of a real server: its own functions, free for everybody, and immutable or stable in all their variants; what is
volatile is listed apart.

A function that somebody created under one of these names, for arguments of other types, is not told from it: that is
between its owner and the connection's user.
"""

from __future__ import annotations

from typing import Final

from remit.policy.patterns import Pattern, glob

_VOLATILE: Final = """
array_sample array_shuffle clock_timestamp currval gen_random_uuid lastval pg_blocking_pids pg_current_wal_flush_lsn
pg_current_wal_insert_lsn pg_current_wal_lsn pg_database_size pg_indexes_size pg_is_in_recovery
pg_last_wal_receive_lsn pg_last_wal_replay_lsn pg_last_xact_replay_timestamp pg_partition_ancestors pg_partition_tree
pg_relation_size pg_table_size pg_tablespace_size pg_total_relation_size pg_xact_commit_timestamp pg_xact_status
random random_normal timeofday txid_status uuidv4 uuidv7
"""
_READING: Final = """
abbrev abs acos acosd acosh age any_value area array_agg array_append array_dims array_fill array_length array_lower
array_ndims array_position array_positions array_prepend array_remove array_replace array_reverse array_sort
array_to_json array_to_string array_to_tsvector array_upper ascii asin asind asinh atan atan2 atan2d atand atanh avg
bit_and bit_count bit_length bit_or bit_xor bool bool_and bool_or bound_box box bpchar broadcast bytea cardinality
casefold cash_words cbrt ceil ceiling center char_length character_length chr cidr circle col_description concat
concat_ws convert convert_from convert_to corr cos cosd cosh cot cotd count covar_pop covar_samp crc32 crc32c
cume_dist current_database current_schema current_schemas current_setting database_to_xml
database_to_xml_and_xmlschema database_to_xmlschema date date_add date_bin date_part date_subtract date_trunc
datemultirange daterange decode degrees dense_rank diagonal diameter div encode enum_first enum_last enum_range erf
erfc every exp factorial family first_value float4 float8 floor format format_type gamma gcd generate_series
generate_subscripts get_bit get_byte get_current_ts_config getdatabaseencoding getpgusername has_any_column_privilege
has_column_privilege has_database_privilege has_foreign_data_wrapper_privilege has_function_privilege
has_language_privilege has_largeobject_privilege has_parameter_privilege has_schema_privilege has_sequence_privilege
has_server_privilege has_table_privilege has_tablespace_privilege has_type_privilege height host hostmask
icu_unicode_version inet_client_addr inet_client_port inet_merge inet_same_family inet_server_addr inet_server_port
initcap int2 int4 int4multirange int4range int8 int8multirange int8range is_normalized isclosed isempty isfinite
ishorizontal isopen isparallel isperp isvertical json_agg json_agg_strict json_array_elements json_array_elements_text
json_array_length json_build_array json_build_object json_each json_each_text json_extract_path json_extract_path_text
json_object_agg json_object_agg_strict json_object_agg_unique json_object_agg_unique_strict json_object_keys
json_populate_record json_populate_recordset json_strip_nulls json_to_record json_to_recordset json_to_tsvector
json_typeof jsonb_agg jsonb_agg_strict jsonb_array_elements jsonb_array_elements_text jsonb_array_length
jsonb_build_array jsonb_build_object jsonb_each jsonb_each_text jsonb_extract_path jsonb_extract_path_text
jsonb_insert jsonb_object jsonb_object_agg jsonb_object_agg_strict jsonb_object_agg_unique
jsonb_object_agg_unique_strict jsonb_object_keys jsonb_path_exists jsonb_path_exists_tz jsonb_path_match
jsonb_path_match_tz jsonb_path_query jsonb_path_query_array jsonb_path_query_array_tz jsonb_path_query_first
jsonb_path_query_first_tz jsonb_path_query_tz jsonb_populate_record jsonb_populate_record_valid
jsonb_populate_recordset jsonb_pretty jsonb_set jsonb_set_lax jsonb_strip_nulls jsonb_to_record jsonb_to_recordset
jsonb_to_tsvector jsonb_typeof justify_days justify_hours justify_interval lag last_value lcm lead left length lgamma
line ln log log10 lower lower_inc lower_inf lpad lseg ltrim macaddr macaddr8 macaddr8_set7bit make_date make_interval
make_time make_timestamp make_timestamptz masklen max md5 min min_scale mod mode money multirange mxid_age name
netmask network now npoints nth_value ntile num_nonnulls num_nulls nummultirange numnode numrange obj_description
octet_length oid oidvectortypes overlaps parse_ident path percent_rank percentile_cont percentile_disc
pg_available_extension_versions pg_available_extensions pg_backend_pid pg_basetype pg_char_to_encoding
pg_client_encoding pg_collation_for pg_collation_is_visible pg_column_compression pg_column_is_updatable
pg_column_size pg_column_toast_chunk_id pg_conf_load_time pg_conversion_is_visible pg_current_snapshot
pg_current_xact_id_if_assigned pg_describe_object pg_encoding_max_length pg_encoding_to_char pg_extension_update_paths
pg_filenode_relation pg_function_is_visible pg_get_acl pg_get_constraintdef pg_get_expr pg_get_function_arg_default
pg_get_function_arguments pg_get_function_identity_arguments pg_get_function_result pg_get_function_sqlbody
pg_get_functiondef pg_get_indexdef pg_get_keywords pg_get_object_address pg_get_partition_constraintdef
pg_get_partkeydef pg_get_publication_tables pg_get_replica_identity_index pg_get_ruledef pg_get_serial_sequence
pg_get_statisticsobjdef pg_get_statisticsobjdef_columns pg_get_statisticsobjdef_expressions pg_get_triggerdef
pg_get_userbyid pg_get_viewdef pg_has_role pg_identify_object pg_identify_object_as_address
pg_index_column_has_property pg_index_has_property pg_input_error_info pg_input_is_valid pg_is_other_temp_schema
pg_listening_channels pg_lsn pg_my_temp_schema pg_numa_available pg_opclass_is_visible pg_operator_is_visible
pg_opfamily_is_visible pg_partition_root pg_postmaster_start_time pg_relation_filenode pg_relation_filepath
pg_relation_is_publishable pg_relation_is_updatable pg_sequence_parameters pg_settings_get_flags pg_size_bytes
pg_size_pretty pg_snapshot_xip pg_snapshot_xmax pg_snapshot_xmin pg_split_walfile_name pg_statistics_obj_is_visible
pg_table_is_visible pg_tablespace_location pg_timezone_names pg_trigger_depth pg_ts_config_is_visible
pg_ts_dict_is_visible pg_ts_parser_is_visible pg_ts_template_is_visible pg_type_is_visible pg_typeof
pg_visible_in_snapshot pg_wal_lsn_diff pg_walfile_name pg_walfile_name_offset phraseto_tsquery pi plainto_tsquery
point polygon pow power querytree quote_ident quote_literal quote_nullable radians radius range_agg
range_intersect_agg range_merge rank regclass regexp_count regexp_instr regexp_like regexp_match regexp_matches
regexp_replace regexp_split_to_array regexp_split_to_table regexp_substr regr_avgx regr_avgy regr_count regr_intercept
regr_r2 regr_slope regr_sxx regr_sxy regr_syy repeat replace reverse right round row_number row_security_active
row_to_json rpad rtrim scale schema_to_xml schema_to_xml_and_xmlschema schema_to_xmlschema set_bit set_byte
set_masklen setweight sha224 sha256 sha384 sha512 shobj_description sign sin sind sinh slope split_part sqrt
statement_timestamp stddev stddev_pop stddev_samp string_agg string_to_array string_to_table strip strpos substr sum
table_to_xml table_to_xml_and_xmlschema table_to_xmlschema tan tand tanh text timestamptz timetz timezone to_ascii
to_bin to_char to_date to_hex to_json to_jsonb to_number to_oct to_regclass to_regcollation to_regnamespace to_regoper
to_regoperator to_regproc to_regprocedure to_regrole to_regtype to_regtypemod to_timestamp to_tsquery to_tsvector
transaction_timestamp translate trim_array trim_scale trunc ts_debug ts_delete ts_filter ts_headline ts_lexize
ts_parse ts_rank ts_rank_cd ts_token_type tsmultirange tsquery_phrase tsrange tstzmultirange tstzrange
tsvector_to_array txid_current_if_assigned txid_current_snapshot txid_snapshot_xip txid_snapshot_xmax
txid_snapshot_xmin txid_visible_in_snapshot unicode_assigned unicode_version unistr unnest upper upper_inc upper_inf
uuid_extract_timestamp uuid_extract_version var_pop var_samp varbit variance version websearch_to_tsquery width
width_bucket xid xml xml_is_well_formed xml_is_well_formed_content xml_is_well_formed_document xmlagg xmlcomment
xmltext xmlvalidate xpath xpath_exists
"""
_KEYWORDS: Final = """
all analyse analyze and any array as asc asymmetric between bigint bit boolean both case cast char character check
coalesce collate column constraint create current_catalog current_date current_role current_time current_timestamp
current_user dec decimal default deferrable desc distinct do else end except exists extract false fetch float for
foreign from grant greatest group grouping having in initially inout int integer intersect interval into json
json_array json_arrayagg json_exists json_object json_objectagg json_query json_scalar json_serialize json_table
json_value lateral leading least limit localtime localtimestamp merge_action national nchar none normalize not null
nullif numeric offset on only or order out overlay placing position precision primary real references returning row
select session_user setof smallint some substring symmetric system_user table then time timestamp to trailing treat
trim true union unique user using values varchar variadic when where window with xmlattributes xmlconcat xmlelement
xmlexists xmlforest xmlnamespaces xmlparse xmlpi xmlroot xmlserialize xmltable
"""
_BEFORE_PARENTHESES: Final = """
bernoulli brin btree by cluster columns conflict copy cube escape explain filter first gin gist hash identity ilike
include inherits insert join key like list materialized operator options over range reindex rollup set sets spgist
system update vacuum verbose zone
"""

VOLATILE: Final = frozenset(_VOLATILE.split())
"""The clock, random numbers, and what the server tells of itself: volatile, and harmless."""
READING: Final = VOLATILE | frozenset(_READING.split())
"""Functions that only read, as of PostgreSQL 18."""
KEYWORDS: Final = frozenset(_KEYWORDS.split())
"""No function can have such a name without double quotes. What looks like a call of one, such as `coalesce (…)`, is
syntax."""
SYNTAX: Final = KEYWORDS | frozenset(_BEFORE_PARENTHESES.split())
"""Words that a parenthesis may follow without a call. No function of the server's own that can be called has such a
name."""

_BETWEEN: Final = "\0"
"""No name can have it, so that a dot within quotes is not taken for the one between schema and name."""


def qualified(schema: str, name: str) -> str:
    """The name that a `function_glob` is matched against; `schema` is empty where a statement names none."""
    return f"{schema}{_BETWEEN}{name}"


def function_glob(text: str) -> Pattern:
    """A pattern for `name`, in any schema or in none, or for `schema.name`; `*` stands for any characters of either.
    Raises `ValueError`."""
    schema, dot, name = text.rpartition(".")
    some = glob(schema).source if schema.strip("*") else ".+" if dot else ".*"
    return Pattern(f"{some}{_BETWEEN}{glob(name).source}")
