"""Environment variables, some of them outhaul's -> Django's settings. Edge: the environment."""

import os

from psycopg.conninfo import conninfo_to_dict

SECRET_KEY = os.environ.get("SECRET_KEY", "for development only")
DEBUG = False
ALLOWED_HOSTS = ["*"]
ROOT_URLCONF = "webapp.urls"
WSGI_APPLICATION = "webapp.wsgi.application"
USE_TZ = True
STATIC_URL = "static/"

INSTALLED_APPS = [
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.messages",
    "django.contrib.sessions",
    "django.contrib.staticfiles",
    "outhaul.django",
    "users",
]
MIDDLEWARE = [
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
]
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ]
        },
    }
]
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

_dsn = conninfo_to_dict(os.environ.get("OUTHAUL_POSTGRES_DSN", "postgresql://127.0.0.1:5432/postgres"))
DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": _dsn.get("dbname"),
        "USER": _dsn.get("user"),
        "PASSWORD": _dsn.get("password"),
        "HOST": _dsn.get("host"),
        "PORT": _dsn.get("port"),
        # The threads of a process share a pool of at most eight connections.
        "OPTIONS": {"pool": {"min_size": 1, "max_size": 8, "timeout": 30}},
    }
}

OUTHAUL_ENVIRONMENT = os.environ.get("ENVIRONMENT", "development")
OUTHAUL_PUBLICATION = os.environ.get("OUTHAUL_PUBLICATION", "outhaul")
# For the admin's column that shows whether an event is stored.
OUTHAUL_CLICKHOUSE_URL = os.environ.get("OUTHAUL_CLICKHOUSE_URL", "")
