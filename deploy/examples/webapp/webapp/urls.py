"""Paths of requests -> views."""

from django.contrib import admin
from django.urls import path

from users.views import users

urlpatterns = [path("users", users), path("admin/", admin.site.urls)]
