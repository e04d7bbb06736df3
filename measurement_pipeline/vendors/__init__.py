"""Everything outside the deployment: clients of Songstats, Stripe, Apify, Spotify and the alert webhook.

`http` sends one request and reads the response, under limits that hold for every vendor. Each vendor's package knows that
vendor's URLs, error bodies and field names; nothing else does. Whether a call may be made is decided elsewhere.
"""
